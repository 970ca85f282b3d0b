"""What a report cites: one entry a work, as BibTeX beside the page and as a numbered
list on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Reference:
    """kind: of BibTeX entry; where: journal, volume and pages, or publisher."""

    kind: str
    authors: str
    year: int
    title: str
    where: str
    doi: str = ""


REFERENCES = {
    "lee2019": Reference(
        "article",
        "Lee, J. and Mawla, I. and Kim, J. and Loggia, M. L. and Ortiz, A. and others",
        2019,
        "Machine learning-based prediction of clinical pain using multimodal "
        "neuroimaging and autonomic metrics",
        "PAIN 160(3), 550–560",
        "10.1097/j.pain.0000000000001417",
    ),
    "griffiths2022": Reference(
        "article",
        "Griffiths, J. D. and Wang, Z. and Ather, S. H. and Momi, D. and Rich, S. and "
        "others",
        2022,
        "Deep learning-based parameter estimation for neurophysiological models of "
        "neuroimaging data",
        "bioRxiv",
        "10.1101/2022.05.19.492664",
    ),
    "deco2014": Reference(
        "article",
        "Deco, G. and Ponce-Alvarez, A. and Hagmann, P. and Romani, G. L. and Mantini, "
        "D. and Corbetta, M.",
        2014,
        "How local excitation-inhibition ratio impacts the whole brain dynamics",
        "Journal of Neuroscience 34(23), 7886–7898",
        "10.1523/JNEUROSCI.5068-13.2014",
    ),
    "friston2003": Reference(
        "article",
        "Friston, K. J. and Harrison, L. and Penny, W.",
        2003,
        "Dynamic causal modelling",
        "NeuroImage 19(4), 1273–1302",
        "10.1016/S1053-8119(03)00202-7",
    ),
    "kingma2015": Reference(
        "inproceedings",
        "Kingma, D. P. and Ba, J.",
        2015,
        "Adam: a method for stochastic optimization",
        "International Conference on Learning Representations",
        "10.48550/arXiv.1412.6980",
    ),
    "haufe2014": Reference(
        "article",
        "Haufe, S. and Meinecke, F. and Görgen, K. and Dähne, S. and Haynes, J.-D. and "
        "Blankertz, B. and "
        "Bießmann, F.",
        2014,
        "On the interpretation of weight vectors of linear models in multivariate "
        "neuroimaging",
        "NeuroImage 87, 96–110",
        "10.1016/j.neuroimage.2013.10.067",
    ),
    "phipson2010": Reference(
        "article",
        "Phipson, B. and Smyth, G. K.",
        2010,
        "Permutation p-values should never be zero: calculating exact p-values when "
        "permutations are randomly drawn",
        "Statistical Applications in Genetics and Molecular Biology 9(1), 39",
        "10.2202/1544-6115.1585",
    ),
    "besag1991": Reference(
        "article",
        "Besag, J. and Clifford, P.",
        1991,
        "Sequential Monte Carlo p-values",
        "Biometrika 78(2), 301–304",
        "10.1093/biomet/78.2.301",
    ),
    "benjamini1995": Reference(
        "article",
        "Benjamini, Y. and Hochberg, Y.",
        1995,
        "Controlling the false discovery rate: a practical and powerful approach to "
        "multiple testing",
        "Journal of the Royal Statistical Society B 57(1), 289–300",
        "10.1111/j.2517-6161.1995.tb02031.x",
    ),
    "elgendi2013": Reference(
        "article",
        "Elgendi, M. and Norton, I. and Brearley, M. and Abbott, D. and Schuurmans, D.",
        2013,
        "Systolic peak detection in acceleration photoplethysmograms measured from "
        "emergency responders in tropical "
        "conditions",
        "PLoS ONE 8(10), e76585",
        "10.1371/journal.pone.0076585",
    ),
    "makowski2021": Reference(
        "article",
        "Makowski, D. and Pham, T. and Lau, Z. J. and Brammer, J. C. and Lespinasse, "
        "F. and others",
        2021,
        "NeuroKit2: a Python toolbox for neurophysiological signal processing",
        "Behavior Research Methods 53, 1689–1696",
        "10.3758/s13428-020-01516-y",
    ),
    "abraham2014": Reference(
        "article",
        "Abraham, A. and Pedregosa, F. and Eickenberg, M. and Gervais, P. and Mueller, "
        "A. and others",
        2014,
        "Machine learning for neuroimaging with scikit-learn",
        "Frontiers in Neuroinformatics 8, 14",
        "10.3389/fninf.2014.00014",
    ),
    "gorgolewski2016": Reference(
        "article",
        "Gorgolewski, K. J. and Auer, T. and Calhoun, V. D. and Craddock, R. C. and "
        "Das, S. and others",
        2016,
        "The brain imaging data structure, a format for organizing and describing "
        "outputs of neuroimaging "
        "experiments",
        "Scientific Data 3, 160044",
        "10.1038/sdata.2016.44",
    ),
    "esteban2019": Reference(
        "article",
        "Esteban, O. and Markiewicz, C. J. and Blair, R. W. and Moodie, C. A. and "
        "Isik, A. I. and others",
        2019,
        "fMRIPrep: a robust preprocessing pipeline for functional MRI",
        "Nature Methods 16, 111–116",
        "10.1038/s41592-018-0235-4",
    ),
    "adebimpe2022": Reference(
        "article",
        "Adebimpe, A. and Bertolero, M. and Dolui, S. and Cieslak, M. and Murtha, K. "
        "and others",
        2022,
        "ASLPrep: a platform for processing of arterial spin labeled MRI and "
        "quantification of regional brain "
        "perfusion",
        "Nature Methods 19, 683–686",
        "10.1038/s41592-022-01458-7",
    ),
    "collins2024": Reference(
        "article",
        "Collins, G. S. and Moons, K. G. M. and Dhiman, P. and Riley, R. D. and Beam, "
        "A. L. and others",
        2024,
        "TRIPOD+AI statement: updated guidance for reporting clinical prediction "
        "models that use regression or "
        "machine learning methods",
        "BMJ 385, e078378",
        "10.1136/bmj-2023-078378",
    ),
    "nichols2017": Reference(
        "article",
        "Nichols, T. E. and Das, S. and Eickhoff, S. B. and Evans, A. C. and Glatard, "
        "T. and others",
        2017,
        "Best practices in data analysis and sharing in neuroimaging using MRI",
        "Nature Neuroscience 20, 299–303",
        "10.1038/nn.4500",
    ),
}


def cited(s: dict[str, Any]) -> list[str]:
    """Keys of what a summary rests on, in the order of its methods."""
    used = ["gorgolewski2016"]
    tools = " ".join(s.get("pipelines", [])).lower()
    used += [
        key
        for name, key in (("fmriprep", "esteban2019"), ("aslprep", "adebimpe2022"))
        if name in tools
    ]
    modalities = set(s.get("prediction", {})) | set(s.get("modalities", []))
    if (
        modalities & {"s1conn", "rcbf", "mechanism", "physiology"}
        or s.get("visit_fits")
        or s.get("models")
    ):
        used.append("abraham2014")
    if "hfhrv" in modalities:
        used += ["elgendi2013", "makowski2021"]
    if modalities & {"mechanism", "physiology"} or s.get("fit") or s.get("models"):
        used += ["deco2014", "friston2003", "kingma2015", "griffiths2022"]
    if s.get("prediction"):
        used += ["lee2019", "phipson2010"]
        used += ["besag1991"] if s["evaluation"].get("stop_after") else []
        used += ["haufe2014", "benjamini1995"] if s.get("maps") else []
    return [*used, "collins2024", "nichols2017"] if s.get("prediction") else used


def bibtex(keys: Sequence[str]) -> str:
    """Entries as a .bib file."""
    return "\n".join(_entry(key, REFERENCES[key]) for key in keys)


def _entry(key: str, of: Reference) -> str:
    where = "booktitle" if of.kind == "inproceedings" else "journal"
    fields = {
        "author": of.authors,
        "year": of.year,
        "title": "{" + of.title + "}",
        where: of.where,
        "doi": of.doi,
    }
    body = ",\n".join(
        f"  {name} = {{{value}}}" for name, value in fields.items() if value
    )
    return f"@{of.kind}{{{key},\n{body}\n}}\n"


def listed(keys: Sequence[str]) -> list[dict[str, Any]]:
    """Entries for a page, in order."""
    return [
        {
            "key": key,
            "doi": r.doi,
            "text": f"{r.authors.replace(' and ', '; ')} ({r.year}). {r.title}. "
            f"{r.where}.",
        }
        for key, r in ((key, REFERENCES[key]) for key in keys)
    ]
