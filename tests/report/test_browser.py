"""The pages of a run in a real browser: nothing fails, nothing is asked of the network,
viewers answer, and axe-core (the checks that Lighthouse uses) finds no barrier."""

import time
from pathlib import Path

import pytest

from cingulum.cli import main
from tests.report.browser import chromium, complaints, requests

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pages(small_cohort, tmp_path_factory):
    out = tmp_path_factory.mktemp("pages") / "out"
    assert (
        main(["run", str(small_cohort), str(out), "group", "--permutations", "99"]) == 0
    )
    return out


@pytest.mark.parametrize("page", ["report.html", "sub-01.html"])
def test_a_page_loads_without_a_word_and_asks_for_nothing(pages, page):
    with chromium() as driver:
        driver.get(f"file://{pages / page}")
        for details in driver.find_elements("css selector", "details"):
            driver.execute_script(
                "arguments[0].open = true; arguments[0].scrollIntoView()", details
            )
        time.sleep(2)
        assert complaints(driver) == [] and requests(driver) == []
        broken = (
            "return [...document.images].filter(i => !i.complete || "
            "!i.naturalWidth).length"
        )
        assert driver.execute_script(broken) == 0


def test_viewers_answer_to_a_click(pages):
    """The three slices of a viewer are drawn, and change where one clicks."""
    with chromium() as driver:
        driver.get(f"file://{pages / 'report.html'}")
        frames = driver.find_elements("css selector", "details.viewer")
        assert len(frames) == 4
        for details in frames:
            driver.execute_script(
                "arguments[0].open = true; arguments[0].scrollIntoView({block: "
                "'center'})",
                details,
            )
            time.sleep(1.5)
            driver.switch_to.frame(details.find_element("css selector", "iframe"))
            canvas = driver.find_element("css selector", "canvas")
            drawn = "return arguments[0].toDataURL()"
            before = driver.execute_script(drawn, canvas)
            assert canvas.size["width"] > 200 and len(before) > 5000
            from selenium.webdriver import ActionChains

            ActionChains(driver).move_to_element_with_offset(
                canvas, -canvas.size["width"] // 3, 20
            ).click().perform()
            time.sleep(0.5)
            assert driver.execute_script(drawn, canvas) != before
            driver.switch_to.default_content()
        assert complaints(driver) == []


@pytest.mark.parametrize("page", ["report.html", "sub-01.html"])
@pytest.mark.parametrize("width", [390, 1000])
def test_no_barrier_is_found(pages, page, width):
    axe = (
        Path(pytest.importorskip("axe_core_python").__file__)
        .with_name("axe.min.js")
        .read_text()
    )
    run = "axe.run({iframes: false}).then(arguments[arguments.length - 1])"
    with chromium(width) as driver:
        driver.get(f"file://{pages / page}")
        driver.execute_script(
            "document.querySelectorAll('details.numbers').forEach(d => d.open = true)"
        )
        driver.execute_script(axe)
        found = driver.execute_async_script(run)
        told = [
            (v["id"], v["nodes"][0]["html"][:120], len(v["nodes"]))
            for v in found["violations"]
        ]
        assert told == []
        wider = driver.execute_script(
            "return document.documentElement.scrollWidth - window.innerWidth"
        )
        assert wider <= 0, "the page scrolls sideways"


def test_a_page_fits_into_a_letter(pages):
    assert (pages / "report.html").stat().st_size < 15e6 and (
        pages / "sub-01.html"
    ).stat().st_size < 5e6
