"""How well brains of four sizes explain real connectivity they never saw, beside
everything simpler that does as well.

    python benchmarks/hcp.py [group] [subjects] [cubnm] [beyond]

Human Connectome Project, 100 Schaefer parcels (`cingulum fetch hcp`). Group: trained on
706 people, tested on 303
others. Subjects: trained on run 1, tested on run 2. Free-running figures pool five
seeds of sixteen runs of 14.4 minutes (1200 volumes): a single run of a person, or of a
model, knows its own connectivity to r = .6–.9 only. A fit never sees its test data.
Every mechanistic row stands beside a linear stochastic network of the
same freedom, fitted the same way: where that does as well, the row proves speed, not
    physiology.
"""

import math
import sys
import time

import pandas as pd
import torch
from torch.distributions import LogNormal

from cingulum.brain import Brain, Connectome, Sensor, with_values
from cingulum.brain.haemodynamics import time_constants
from cingulum.brain.masses import ReducedWongWang
from cingulum.datasets import hcp
from cingulum.errors import ConvergenceError
from cingulum.inference import (
    Gains,
    Mapped,
    Runs,
    equal_control,
    fc_level,
    fc_mismatch,
    fit,
    lag_mismatch,
    verify,
)
from cingulum.inference.problem import at_rest, cast
from cingulum.measures import (
    edges,
    fc,
    fcd_of_edges,
    ks_distance,
    lag_one,
    pearson,
    similarity,
)
from cingulum.simulation import balanced, simulate

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
N = 100
FOLDER = hcp.fetch()
WITHIN = edges((torch.arange(N)[:, None] < 50) == (torch.arange(N)[None] < 50)).bool()
RUNS = Runs(minutes=14.4, runs=16)


def compressed(connectome: Connectome, how: str = "root") -> Connectome:
    """Tract counts span four orders of magnitude: their root or logarithm lets weak
    ones count.

    Which of the two a model takes was chosen by its correlation with the group it was
    trained on.
    """
    least = connectome.weights[connectome.weights > 0].min()
    weights = (
        connectome.weights**0.5
        if how == "root"
        else torch.log1p(connectome.weights / least)
    )
    return Connectome(weights, connectome.regions, connectome.lengths).normalised()


def regional(centre: float, spread: float) -> LogNormal:
    return LogNormal(math.log(centre), spread).expand([N])


def sizes() -> dict[str, tuple[dict, dict]]:
    """Free parameters and settings of the four models."""
    coupling, maps = LogNormal(-1.0, 0.7), hcp.regional_maps(FOLDER)
    line = {
        "noise": Mapped(
            LogNormal(math.log(0.003), 0.5), maps[[0, 3]], 1.0, ("gradient", "myelin")
        ),
        "mass.J_N": Mapped(
            LogNormal(math.log(0.1), 0.5), maps[[0, 3]], 1.0, ("gradient", "myelin")
        ),
        "sensor.noise": LogNormal(math.log(0.001), 1.0),
    }
    each = {
        "mass.J_N": LogNormal(math.log(0.08), 1.2).expand([N]),
        "noise": regional(0.002, 2.0),
        "sensor.noise": regional(0.001, 2.0),
    }
    wires = {"connectome.weights": Gains(spread=6.0), "noise": regional(0.003, 1.0)}
    return {
        "global": (
            {"strength": coupling, "mass.w_plus": LogNormal(math.log(1.4), 0.1)},
            {},
        ),
        "linear in maps": ({"strength": coupling} | line, {"how": "log"}),
        "regional": ({"strength": coupling} | each, {"steps": 600, "rate": 0.1}),
        "connection weights": (
            {"strength": coupling} | wires,
            {"steps": 100, "rate": 0.2, "how": "log"},
        ),
    }


def sized(connectome: Connectome, train, test, group=None) -> pd.DataFrame:  # type: ignore[no-untyped-def]
    """A table of the four models, each beside its linear control, on one set of
    data."""
    rows = []
    for name, (free, settings) in sizes().items():
        settings = {"steps": 300} | settings
        brain = Brain(
            ReducedWongWang(),
            compressed(connectome, settings.pop("how", "root")),
            Sensor(tr=0.72),
        )
        began = time.perf_counter()
        found = fit(
            brain,
            train,
            free,
            prepare=balanced,
            method="analytic",
            patience=None,
            runs=RUNS,
            **settings,
        )
        seconds = time.perf_counter() - began
        table = verify(found, test, group=group).table
        row = {
            "model": name,
            "free": len(found.coordinates()),
            "fit s": seconds,
            "loop gain": found.loop_gain.item(),
        }
        free_run, control = table.loc["free-running model"], table.loc["linear control"]
        row |= {
            "train": free_run["train"],
            "held out": free_run["held_out"],
            "± seeds": free_run["spread"],
        }
        row |= {"analytic held out": table.loc["analytic model", "held_out"]}
        row |= {
            "linear free": control["free_parameters"],
            "linear held out": control["held_out"],
        }
        if group is not None:
            row |= {
                "individual": free_run["individual"],
                "linear individual": control["individual"],
            }
        rows.append(row)
        print(f"  {name}: {seconds:.1f} s", file=sys.stderr)
    return pd.DataFrame(rows).set_index("model")


def show(title: str, table: pd.DataFrame) -> None:
    print(f"\n## {title}\n\n{table.round(3).to_string()}")


def group() -> None:
    train, test = hcp.group_fc(FOLDER), hcp.group_fc(FOLDER, "group-test303")
    connectome = hcp.connectome(FOLDER)
    print(
        f"\nSC–FC {similarity(connectome.weights, test).item():.3f}; reliability "
        f"{similarity(train, test).item():.3f}"
    )
    show("Group: trained on 706, held out 303", sized(connectome, train, test))


def subjects() -> None:
    mean = hcp.group_fc(FOLDER)
    for who in ("100206", "100307"):
        runs = [fc(hcp.bold(FOLDER, who, run).data) for run in ("REST1_LR", "REST2_LR")]
        connectome = hcp.connectome(FOLDER, who)
        figures = {
            "SC–FC": connectome.weights,
            "reliability": runs[0],
            "group FC as the model": mean,
        }
        print(
            "\n"
            + "; ".join(
                f"{k} {similarity(v, runs[1]).item():.3f}" for k, v in figures.items()
            )
        )
        ceiling = pearson(
            edges(runs[0]) - edges(mean), edges(runs[1]) - edges(mean)
        ).item()
        print(f"individual part, ceiling (run 1 against run 2): {ceiling:.3f}")
        show(
            f"Subject {who}: trained on run 1, held out run 2",
            sized(connectome, runs[0], runs[1], mean),
        )


# cuBNM's scorer: edges within hemispheres, FCD of 43-volume windows every 7, 15 minutes
# of simulation.


def within(model, recorded):  # type: ignore[no-untyped-def]
    """fc_mismatch over the edges within hemispheres."""
    r = pearson(edges(model.fc)[..., WITHIN], edges(recorded.fc)[..., WITHIN])
    return -torch.log(0.5 + 0.5 * r)


def scored(brain: Brain, who: str, seed: int, seeds: int = 5) -> dict[str, float]:
    """Mean over single runs of 15 minutes: FC correlation within hemispheres, FCD
    distance, and how smooth it is."""
    recorded, dynamics = hcp.group_fc(FOLDER, who), hcp.group_fcd(FOLDER, who)
    fast = cast(brain, torch.float32)
    run = simulate(fast, 900, dt=0.004, batch=(seeds,), discard=30, seed=seed)
    x = run.signal.data.double()
    own = fcd_of_edges(x, 43, 7, WITHIN)
    r = pearson(edges(fc(x))[:, WITHIN], edges(recorded)[WITHIN].expand(seeds, -1))
    ks = sum(ks_distance(values, dynamics) for values in own) / seeds
    return {
        "FC r": r.mean().item(),
        "FCD KS": ks,
        "lag-1": lag_one(x).mean().item(),
        "mean FC": edges(fc(x)).mean().item(),
    }


def smoothed_to_the_data(brain: Brain) -> Brain:
    """Measurement noise chosen on the training group: highest FC r − KS. One more free
    parameter, counted."""
    fast = cast(brain, torch.float32)
    sd = (
        simulate(fast, 300, dt=0.004, start=at_rest(fast, ()), discard=20, seed=9)
        .signal.data.std(-1)
        .mean()
        .item()
    )
    tried = [
        with_values(brain, {"sensor.noise": share * sd})
        for share in (0.0, 0.1, 0.15, 0.175, 0.2, 0.225, 0.25, 0.3, 0.4)
    ]
    scores = [scored(b, "group-train706", seed=7) for b in tried]
    return max(
        zip(scores, tried, strict=True),
        key=lambda pair: pair[0]["FC r"] - pair[0]["FCD KS"],
    )[1]


def cubnm() -> None:
    """Three parameters at cuBNM's noise, found by simulations side by side; fifteen by
    gradient."""
    began = time.perf_counter()
    three = searched()
    rows = [
        scoreboard(
            "3 parameters (G, w_plus, J_N)", 3, three, began, ".299 / .142 (training)"
        )
    ]
    maps, began = hcp.regional_maps(FOLDER), time.perf_counter()
    coupling, w_plus = LogNormal(-1.0, 0.7), LogNormal(math.log(1.4), 0.1)
    level = LogNormal(
        math.log(0.01), 0.01
    )  # FC does not see the level of noise: its line has slopes only
    free = {
        "strength": coupling,
        "noise": Mapped(level, maps, 1.0),
        "mass.w_plus": Mapped(w_plus, maps, 0.3),
    }
    brain = Brain(
        ReducedWongWang(), compressed(hcp.connectome(FOLDER)), Sensor(tr=0.72)
    )
    # A correlation does not see the level of connectivity, which decides the dynamics:
    # fc_level does.
    found = fit(
        brain,
        hcp.group_fc(FOLDER),
        free,
        objective={within: 1.0, fc_level: 0.3},
        prepare=balanced,
        method="analytic",
        patience=None,
    )
    fifteen = smoothed_to_the_data(found.brain)
    rows.append(
        scoreboard("15 parameters (six maps)", 15, fifteen, began, ".507 / .171")
    )
    show(
        "cuBNM's scorer: FC within hemispheres and FCD, single runs of 15 minutes",
        pd.concat(rows).set_index("model"),
    )


def scoreboard(
    name: str, size: int, brain: Brain, began: float, peer: str
) -> pd.DataFrame:
    seconds = time.perf_counter() - began
    rows = []
    for who in ("group-train706", "group-test303"):
        row = {
            "model": name,
            "free": size,
            "scored on": who,
            "fit s": seconds,
        } | scored(brain, who, seed=100)
        rows.append(row | {"cuBNM FC r / KS (an A100, up to 80 min)": peer})
    return pd.DataFrame(rows)


def searched(rounds: int = 4, together: int = 40) -> Brain:
    """Random search that narrows: the working regime is strongly noisy and not linear,
    so it is simulated."""
    rng = torch.Generator().manual_seed(0)
    low, high = torch.tensor([0.3, 0.3, 0.08]), torch.tensor([2.5, 1.4, 0.3])
    brain = Brain(
        ReducedWongWang(),
        hcp.connectome(FOLDER),
        Sensor(tr=0.72, response=time_constants()),
        noise=0.01 * 1000**0.5,
    )
    points, scores = torch.empty(0, 3), torch.empty(0)
    for number in range(rounds):
        drawn = low + (high - low) * torch.rand(together, 3, generator=rng)
        if number:
            best = points[scores.argsort(descending=True)[:5]]
            centre = best[torch.randint(5, (together,), generator=rng)]
            spread = (
                0.15
                * (high - low)
                * 0.5**number
                * torch.randn(together, 3, generator=rng)
            )
            drawn = (centre + spread).clamp(low, high)
        points, scores = (
            torch.cat([points, drawn]),
            torch.cat([scores, gains(brain, drawn)]),
        )
    # The highest of many noisy scores is too high: the best ten run again with other
    # seeds.
    top = points[scores.argsort(descending=True)[:10]]
    again = torch.stack([gains(brain, top, seed) for seed in (21, 22, 23)]).mean(0)
    return candidate(brain, top[again.argmax()])


def candidate(brain: Brain, point: torch.Tensor) -> Brain:
    names = ("strength", "mass.w_plus", "mass.J_N")
    return balanced(
        with_values(
            brain, dict(zip(names, point.unsqueeze(-1).unbind(-2), strict=True))
        )
    )


def gains(brain: Brain, points: torch.Tensor, seed: int = 5) -> torch.Tensor:
    """FC r − FCD KS of each point on the training group; −1 where there is no working
    point or the run diverges."""
    recorded, dynamics = edges(hcp.group_fc(FOLDER))[WITHIN], hcp.group_fcd(FOLDER)
    found = []
    for part in points.split(8):
        fast = cast(candidate(brain, part), torch.float32)
        try:
            run = simulate(
                fast, 900, dt=0.004, batch=(len(part),), discard=30, seed=seed
            ).signal.data.double()
        except ConvergenceError:
            found.append(torch.full((len(part),), -1.0))
            continue
        r = pearson(edges(fc(run))[:, WITHIN], recorded.expand(len(part), -1))
        ks = torch.tensor(
            [ks_distance(v, dynamics) for v in fcd_of_edges(run, 43, 7, WITHIN)]
        )
        found.append(torch.nan_to_num(r - ks, -1.0))
    return torch.cat(found)


def beyond() -> None:
    """What a physiological model says that the linear control does not, or says worse:
    a subject's run 2."""
    rows = []
    for who in ("100206", "100307"):
        one, two = (hcp.bold(FOLDER, who, run) for run in ("REST1_LR", "REST2_LR"))
        connectome = compressed(hcp.connectome(FOLDER, who))
        free, _ = sizes()["regional"]
        brain = Brain(ReducedWongWang(), connectome, Sensor(tr=0.72))
        # Smoothness is part of what is asked here: measurement noise, which the linear
        # control has not, can answer.
        aims = {fc_mismatch: 1.0, fc_level: 0.3, lag_mismatch: 3.0}
        found = fit(
            brain,
            one,
            {"strength": LogNormal(-1.0, 0.7)} | free,
            objective=aims,
            prepare=balanced,
            method="analytic",
            patience=None,
            steps=150,
            rate=0.1,
        )
        linear = equal_control(
            connectome, fc(one.data), found.problem.free_parameters
        ).brain(connectome, Sensor(tr=0.72))
        rows.append(
            {"who": who, "model": "recorded, run 1 against run 2"}
            | figures(one.data, two.data)
        )
        for name, model in {
            "two-state Wong-Wang, regional": found.brain,
            "linear, regional": linear,
        }.items():
            fast = cast(model, torch.float32)
            run = simulate(
                fast, 1200 * 0.72, dt=0.004, start=at_rest(fast, ()), discard=30, seed=1
            ).signal.data.double()
            row = {"who": who, "model": name} | figures(run, two.data)
            rate = (
                model.mass.rates(*working_point(model))[0].mean().item()
                if hasattr(model.mass, "rates")
                else math.nan
            )
            rows.append(row | {"rate Hz": rate})
    show("Beyond FC, held-out run 2", pd.DataFrame(rows).set_index(["who", "model"]))


def working_point(brain: Brain):  # type: ignore[no-untyped-def]
    from cingulum.simulation import fixed_point

    x = fixed_point(brain)
    return x, brain.coupling(x)


def figures(x: torch.Tensor, recorded: torch.Tensor) -> dict[str, float]:
    everywhere = torch.ones_like(WITHIN)
    gap = ks_distance(
        fcd_of_edges(x, 83, 5, everywhere), fcd_of_edges(recorded, 83, 5, everywhere)
    )
    low = [band_share(s) for s in (x, recorded)]
    return {
        "FC r": similarity(fc(x), fc(recorded)).item(),
        "FCD KS (83, 5)": gap,
        "lag-1": lag_one(x).mean().item(),
        "lag-1 recorded": lag_one(recorded).mean().item(),
        "power below .1 Hz": low[0],
        "recorded ": low[1],
    }


def band_share(x: torch.Tensor) -> float:
    power = torch.fft.rfft(x - x.mean(-1, keepdim=True)).abs().square().mean(0)
    f = torch.fft.rfftfreq(x.shape[-1], 0.72)
    return (power[f < 0.1].sum() / power.sum()).item()


if __name__ == "__main__":
    for part in sys.argv[1:] or ["group", "subjects", "cubnm", "beyond"]:
        {"group": group, "subjects": subjects, "cubnm": cubnm, "beyond": beyond}[part]()
