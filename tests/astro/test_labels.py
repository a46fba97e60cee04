"""Who says the class of a galaxy: a column, the data, or the rules of --classes."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from priorscope.errors import InputError
from priorscope_astro.conditions.classes import UNCLASSIFIED
from priorscope_astro.conditions.votes import VoteTable
from priorscope_astro.data.anything import read_galaxies
from priorscope_astro.data.galaxies import GalaxySet
from priorscope_astro.labels import label, refuse_unused
from priorscope_astro.plan_config import PlanConfig

CAPTIONS = ("spiral galaxy", "merger", "completely round galaxy")
OWN = ("a", "b", "c")


@pytest.fixture
def rules(tmp_path):
    """A file of two classes."""
    path = tmp_path / "mine.json"
    path.write_text(
        json.dumps({"classes": [{"name": "disc", "tags": "spiral galaxy"}, {"name": "m", "tags": "merger"}]})
    )
    return str(path)


def test_rules_that_are_asked_for_win_over_the_datas_own_classes(rules, simulated_survey):
    stamps = read_galaxies(simulated_survey, mode="flux")
    default = PlanConfig("x")
    assert label(stamps, default).labels == stamps.labels
    by_file = label(stamps, replace(default, classes=rules)).labels
    assert set(by_file) == {"disc", "m", UNCLASSIFIED}
    spirals = np.isin(stamps.labels, ("spiral", "barred"))
    assert np.mean(np.array(by_file)[spirals] == "disc") > 0.8
    assert "disk" in label(stamps, replace(default, classes="gz2")).labels  # no class of the simulator
    captioned = GalaxySet(OWN, captions=CAPTIONS, labels=OWN)
    assert label(captioned, default).labels == OWN
    assert label(captioned, replace(default, classes=rules)).labels == ("disc", "m", UNCLASSIFIED)


def test_a_column_and_classes_that_nothing_else_tells_stay(rules):
    named = PlanConfig("x", classes=rules, class_column="kind")
    assert label(GalaxySet(OWN, captions=CAPTIONS, labels=OWN), named).labels == OWN
    assert label(GalaxySet(OWN, labels=OWN), PlanConfig("x", classes=rules)).labels == OWN
    with pytest.raises(InputError, match="neither classes, votes nor captions"):
        label(GalaxySet(OWN), PlanConfig("x"))


def test_what_changes_nothing_is_refused(rules):
    galaxies = GalaxySet(OWN, captions=CAPTIONS, labels=OWN)
    for settings, said in (
        (
            {"classes": rules, "class_column": "kind"},
            r"--classes .* changes nothing: --class-column kind says the class",
        ),
        ({"agreement": 0.8}, r"--agreement 0.8 changes nothing: the data says the classes\. .* or add --classes"),
        ({"cuts": "willett13", "classes": rules}, "--cuts willett13 changes nothing: there are no votes"),
    ):
        with pytest.raises(InputError, match=said):
            refuse_unused(galaxies, PlanConfig("x", **settings))
    with pytest.raises(InputError, match=r"--classes gz2 changes nothing: the data says the classes\. Leave it out\.$"):
        refuse_unused(GalaxySet(OWN, labels=OWN), PlanConfig("x", classes="gz2"))
    refuse_unused(galaxies, PlanConfig("x", classes=rules, agreement=0.8))
    refuse_unused(galaxies, PlanConfig("x"))
    voted = replace(galaxies, labels=None, votes=VoteTable.from_counts(np.zeros((3, 37), np.int64)))
    refuse_unused(voted, PlanConfig("x", classes=rules, agreement=0.8, cuts="willett13"))
