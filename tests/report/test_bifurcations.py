import numpy as np

from cingulum.brain.masses import GainWongWang, JansenRit
from cingulum.report.bifurcations import bifurcation_diagram, stability_plane
from cingulum.report.plots import png
from cingulum.simulation import continuation, stability_map


def test_a_diagram_marks_its_bifurcations():
    figure = bifurcation_diagram(continuation(JansenRit(), "p", 86.0, 94.0))
    (ax,) = figure.axes
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["Hopf"]
    assert ax.get_xlabel() == "p" and png(figure)[:4] == b"\x89PNG"


def test_a_plane_shows_how_many_stable_states_there_are():
    mass = GainWongWang(I_0=0.2, g_EE=0.5)
    table = stability_map(
        mass, ("g_EI", np.array([0.2, 1.0])), ("g_IE", np.linspace(0, 2, 5))
    )
    figure = stability_plane(table)
    shown = figure.axes[0].collections[0].get_array()
    assert set(np.ravel(shown)) == {1, 2} and figure.axes[0].get_xlabel() == "g_EI"
