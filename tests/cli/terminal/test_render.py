"""What a search prints at its end, from facts."""

from pipeline.cli.terminal.render import print_result
from pipeline.search.result import SearchResult

FACTS = {
    "study": "photos-1",
    "objective": "val_accuracy",
    "winner": {"trial": 3, "params": {"depth": 2}, "val_accuracy": 0.9, "num_params": 100, "mflops": 1.5, "epochs": 9},
    "test": {"accuracy": 0.8, "ci95": [0.7, 0.9], "num_images": 50},
    "test_opened": 1,
    "trials": {"completed": 4},
    "model_uri": "models:/photos/1",
    "seconds": 60,
}


def printed(capsys, **changes):
    print_result(SearchResult.from_json({**FACTS, **changes}))
    return capsys.readouterr().out


def test_a_winner_that_was_cut_off_is_said_to_be(capsys):
    assert "CUT OFF" not in printed(capsys, planned_epochs=9)
    assert "CUT OFF after 9 of 12 epochs, because the time was up" in printed(capsys, planned_epochs=12)


def test_the_latency_is_that_of_this_machine_and_of_one_core_where_that_is_known(capsys):
    text = "latency        0.80 ms for one image with the threads of this machine"
    line = next(
        line for line in printed(capsys, latency={"default_ms": 0.8, "one_core_ms": 1.234}).splitlines() if "ms" in line
    )
    assert line.split() == f"{text}; on one core 1.23 ms".split()
    assert "one core" not in printed(capsys, latency={"default_ms": 0.8, "one_core_ms": None})


def test_the_front_is_shown_with_the_unit_of_its_cost(capsys):
    scores = {"trial": 1, "val_accuracy": 0.9}, {"trial": 2, "val_accuracy": 0.95}
    costs = {
        "latency": (0.60839, 1.2, "0.608 ms", "1.200 ms"),
        "params": (999, 1234567, "999 params", "1,234,567 params"),
    }
    for cost, (first, second, *texts) in costs.items():
        front = [{**scores[0], cost: first}, {**scores[1], cost: second}]
        line = next(line for line in printed(capsys, front=front).splitlines() if line.startswith("front"))
        assert line.split(maxsplit=1)[1] == f"trial 1: 0.9000 at {texts[0]}; trial 2: 0.9500 at {texts[1]}"


def test_an_ensemble_is_said_to_be_one(capsys):
    found = {"is_kept": True, "reason": "", "alone": 0.8, "averaged": 0.9, "num_networks": 3}
    lines = {line.split()[0]: line.split(maxsplit=1)[1] for line in printed(capsys, ensemble=found).splitlines()}
    assert lines["ensemble"].startswith(
        "each image is labelled by the mean of 3 networks like the winner's: val_accuracy"
    )
    assert lines["winner"].startswith("trial 3, 3 networks: val_accuracy 0.9000, 100 params")
    alone = printed(capsys, ensemble={"is_kept": False, "reason": "the twin has no validation logits"})
    assert "not used: the twin has no validation logits" in alone
    assert "trial 3: val_accuracy" in alone


def test_a_result_of_an_earlier_version_is_printed_without_what_it_does_not_have(capsys):
    lines = printed(capsys).splitlines()
    assert [line.split()[0] for line in lines] == ["test", "winner", "network", "trials", "model", "study"]


def test_the_worst_kinds_of_images_are_shown_with_harmless_names(capsys):
    figure = {"accuracy": 0.5, "ci95": [0.3, 0.7], "num_images": 20}
    out = printed(capsys, slices={"si\x1b[31mte": dict.fromkeys(("a", "b\n", "c", "d"), figure)})
    line = next(line for line in out.splitlines() if line.startswith("by "))
    assert line.startswith("by si\\x1b[31mte")
    assert "b\\n 50.0% (30.0% to 70.0%, 20 images)" in line
    assert line.endswith("; 1 more in model.json")


def test_what_sharing_weights_saves_is_said_where_it_is_known(capsys):
    assert "fully connected" not in printed(capsys)
    winner = {**FACTS["winner"], "dense_params": 5000}
    assert "100 params, 1.5 MFLOPs; fully connected it had 50 times the params" in printed(capsys, winner=winner)


def test_several_labels_are_said_to_be_right_together_and_the_worst_are_shown(capsys):
    figure = {"num_images": 20, "auc": 0.9, "ci95": [0.8, 1.0], "precision": 0.5, "recall": 0.25}
    odd = {**figure, "auc": None, "ci95": None}
    by_class = {"a": figure, "b": {**figure, "auc": 0.7, "precision": None}, "c": odd, "d": figure, "e": figure}
    lines = printed(capsys, is_multi_label=True, by_class=by_class).splitlines()
    assert lines[0].split(maxsplit=2)[2].startswith("80.00%  (all labels of an image right; 95 % interval")
    (line,) = [line for line in lines if line.startswith("worst labels")]
    assert line.split(maxsplit=2)[2] == (
        "b AUC 0.7000 (0.8000 to 1.0000; never answered, recall 25% of 20), a AUC 0.9000 (0.8000 to 1.0000; precision "
        "50%, recall 25% of 20), d AUC 0.9000 (0.8000 to 1.0000; precision 50%, recall 25% of 20); 2 more in model.json"
    )


def test_figures_of_rare_labels_are_shown_with_the_reason_why_they_have_no_interval(capsys):
    rare = {"value": 0.9, "ci95": None, "reason": "found at most 3"}
    label = {"num_images": 3, "auc": 0.8, "ci95": None, "reason": "found 3 with it", "precision": None, "recall": 0.0}
    test = {**FACTS["test"], "metrics": {"loss": {"value": 0.5, "ci95": [0.4, 0.6]}, "auc": rare}}
    gain = {
        "reason": "found at most 3", "metric": "auc", "value": 0.5, "gain": 0.1, "ci95": None, "standard_error": None,
        "is_gain": False,
    }  # fmt: skip
    out = printed(capsys, test=test, validation=rare, search_gain=gain, by_class={"a": label}, flaw="too rare")
    lines = {line.split("  ")[0]: line.split("  ", 1)[1].strip() for line in out.splitlines()}
    assert lines["also"] == "loss 0.5000 (0.4000 to 0.6000), auc 0.9000 (no interval: found at most 3)"
    assert lines["worst labels"] == "a AUC 0.8000 (too few images for an interval; never answered, recall 0% of 3)"
    assert lines["against reference"] == "not measured: found at most 3"
    assert lines["winner"].startswith(
        "trial 3: val_accuracy 0.9000 (no interval: found at most 3, optimistic: used to choose the winner)"
    )
    assert lines["NOT A CHAMPION"] == "too rare"


def test_test_images_that_do_not_count_are_shown_by_name(capsys):
    names = [f"photos/{number}.tif" for number in range(4)]
    out = printed(capsys, test={**FACTS["test"], "not_finite": {"num_images": 1234, "images": names}})
    (line,) = (line for line in out.splitlines() if line.startswith("NOT COUNTED"))
    assert line.split(maxsplit=2)[2] == (
        "1,234 test image(s) for which the network gives NaN or infinity; check their pixel values: "
        "photos/0.tif, photos/1.tif, photos/2.tif, ..."
    )


def test_classes_that_are_confused_are_shown_with_what_they_are_taken_for(capsys):
    right = {"num_images": 20, "auc": 0.9, "ci95": None, "precision": 0.5, "precision_ci95": [0.3, 0.7]}
    by_class = {
        "cat": {**right, "recall": 0.25, "recall_ci95": [0.1, 0.5]},
        "dog": {**right, "recall": 0.5, "recall_ci95": [0.3, 0.7], "precision": None},
        "owl": {**right, "num_images": 0, "recall": None},
        "ant": {**right, "recall": 1.0, "recall_ci95": [0.8, 1.0]},
    }
    confusion = {"cat": {"cat": 5, "ant": 4, "dog": 11}, "dog": {"ant": 10, "dog": 10}, "owl": {}, "ant": {"ant": 20}}
    lines = printed(capsys, by_class=by_class, confusion=confusion).splitlines()
    (line,) = [line for line in lines if line.startswith("worst classes")]
    assert line.split(maxsplit=2)[2] == (
        "cat recall 25.0% (10.0% to 50.0% of 20; precision 50%; 11 taken for dog), dog recall 50.0% (30.0% to 70.0% of "
        "20; never answered; 10 taken for ant), ant recall 100.0% (80.0% to 100.0% of 20; precision 50%); 1 more in "
        "model.json"
    )
