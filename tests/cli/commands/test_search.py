"""`pipeline search` as a user runs it: real images, real trainings, real MLflow."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.files import sha256_file
from pipeline.json_records import to_json
from pipeline.search.timing.budget import PROBE_FACTOR, SECONDS_PER_TRIAL
from pipeline.states import TrainingKind
from tests.cli.workspace import pipeline, write_photos
from tests.data.pictures import write_picture

pytestmark = pytest.mark.heavy

OPTIONS = ("--space", "./tiny.yaml", "--workers", "1", "--json")


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A workspace in which one search ran, beside an empty home, and what it printed."""
    folder = tmp_path_factory.mktemp("searched") / "work"
    for name in ("home", "work"):
        folder.with_name(name).mkdir()
    write_photos(folder)
    (folder / "photos" / "dark" / "broken.png").write_bytes(b"no picture")
    done = pipeline(folder, "search", "photos", "--trials", "4", *OPTIONS, HOME=str(folder.with_name("home")))
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout), done.stderr


def plan_search(folder, monkeypatch, *options):
    """Return the plan of a search."""
    from pipeline.cli.commands.search import command, search_request
    from pipeline.workflows.plan import make_plan

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # the plan sets it
    write_photos(folder)
    params = command.make_context("search", [str(folder / "photos"), *options]).params
    return make_plan(replace(search_request(params["data"], params, ()), workspace=folder))


@pytest.mark.parametrize(
    ("limits", "bfloat16", "num_probes"),
    [
        (["--budget", "5m"], False, 1),
        (["--budget", "5m", "--trials", "3", "--precision", "float32"], True, 1),
        (["--trials", "3"], False, 0),
        (["--trials", "3"], True, 1),
        (["--trials", "3", "--precision", "float32"], True, 0),
        (["--trials", "3", "--deterministic"], True, 0),
    ],
)
def test_the_first_trial_waits_for_a_probe_only_where_something_hangs_on_speed(
    tmp_path, monkeypatch, limits, bfloat16, num_probes
):
    from concurrent.futures import Future

    from pipeline.search.timing.speed import Speed
    from pipeline.workflows import speed as workflow
    from pipeline.workflows.progress import SILENT

    plan = plan_search(tmp_path, monkeypatch, *limits)
    monkeypatch.setattr(workflow, "has_bfloat16", lambda: bfloat16)
    context, speed, calls = plan.context(plan.spec, plan.counts), Future(), []
    speed.set_result(Speed(2 * context.estimate(context.typical, 1000) / 1000, "float32", 7.0))
    engine = SimpleNamespace(call_all=lambda *call: calls.append(call) or [speed] * 2, check=lambda: None)
    found = workflow.measure_if_needed(plan, engine, context, SILENT)
    assert len(calls) == num_probes
    assert found.factor == pytest.approx(2 * PROBE_FACTOR if num_probes else 1.0)
    assert found.precision == "float32"
    assert found.start_seconds == SECONDS_PER_TRIAL
    on_gpus = replace(context, parallelism=replace(context.parallelism, has_gpus=True))
    found = workflow.measure_if_needed(plan, engine, on_gpus, SILENT)
    assert found.start_seconds == (7.0 if num_probes else SECONDS_PER_TRIAL)  # compiling for a GPU takes its time


def test_a_study_goes_on_in_the_precision_that_it_began_in(tmp_path, monkeypatch):
    from pipeline.workflows.speed import wanted_precision

    plan = plan_search(tmp_path, monkeypatch)
    assert wanted_precision(plan) == "auto"
    plan = replace(plan, stored={"precision": "bfloat16"})
    assert wanted_precision(plan) == "bfloat16"
    plan = replace(plan, options=replace(plan.options, precision="float32"))
    assert wanted_precision(plan) == "float32"  # as it was asked for


def test_the_result_keeps_its_contract(searched):
    _, facts, _ = searched
    assert facts["schema"] == 1
    assert facts["study"] == "photos-1"
    assert facts["model_uri"] == "models:/photos/1"
    assert set(facts["winner"]) >= {"trial", "params", "val_accuracy", "num_params", "mflops"}
    assert (facts["objective"], facts["front"]) == ("val_accuracy", [])
    assert facts["trials"] == {
        "completed": 4, "pruned": 0, "failed": 0, "infeasible": 0, "crashed": 0, "timeout": 0,
    }  # fmt: skip
    low, high = facts["test"]["ci95"]
    assert facts["test"]["num_images"] == 15
    assert low <= facts["test"]["accuracy"] <= high
    assert facts["test"]["accuracy"] == 1.0  # brightness tells the classes apart
    assert facts["seconds"] > 0
    assert facts["winner"]["dense_params"] > facts["winner"]["num_params"]
    assert (facts["robustness"]["num_images"], facts["robustness"]["accuracy"]) == (15, 1.0)
    assert facts["slices"] == {}  # folders name no kinds of images


def test_nothing_is_written_outside_the_workspace_places(searched):
    folder, _, _ = searched
    assert {path.name for path in folder.iterdir()} == {"photos", "tiny.yaml", "mlflow.db", "mlruns"}
    assert list(folder.with_name("home").rglob("*")) == []


def test_the_broken_file_is_named(searched):
    folder, _, stderr = searched
    assert "not used: dark/broken.png: unsupported" in stderr
    bad = json.loads((folder / "mlruns/studies/photos-1/bad_files.json").read_text())
    assert [item["path"] for item in bad] == ["dark/broken.png"]


def test_how_trainings_compute_and_whether_they_flip_is_decided_and_said(searched):
    from pipeline.search.storage.store import StudyStore

    folder, _, printed = searched
    store = StudyStore(folder / "mlruns" / "studies" / "photos-1" / "study.db")
    facts = store.facts()
    store.close()
    assert facts["precision"] in ("float32", "bfloat16")
    assert f"thread(s), {facts['precision']}\n" in printed
    assert ("horizontal flips on: the nearest" in printed) == facts["allows_flips"]
    assert ("horizontal flips off" in printed) != facts["allows_flips"]


def test_the_leaderboard_is_best_first_and_keeps_its_contract(searched):
    folder, facts, _ = searched
    rows = json.loads(pipeline(folder, "runs", "--json").stdout)
    assert len(rows) == 4
    assert set(rows[0]) >= {"trial", "state", "score", "params", "num_params", "seconds", "reason"}
    scores = [row["score"] for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert (rows[0]["trial"], rows[0]["score"]) == (facts["winner"]["trial"], facts["winner"]["val_accuracy"])
    text = pipeline(folder, "runs", "photos-1").stdout
    assert "test accuracy 100.00% (95 % interval" in text


def test_mlflow_holds_every_trial_with_all_params_and_curves(searched):
    from mlflow import MlflowClient

    folder, facts, _ = searched
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("photos")
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    trials = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert [run.info.run_id for run in parents] == [facts["run_id"]]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len(trials) == 4
    for run in trials:
        assert set(run.data.params) >= {"depth", "filters", "pooling", "learning_rate", "batch_size"}
        history = client.get_metric_history(run.info.run_id, "val_accuracy")
        steps = [point.step for point in history]
        assert steps == list(range(1, len(steps) + 1))
        assert run.data.metrics["best_val_accuracy"] == pytest.approx(history[-1].value)
    assert parents[0].data.metrics["test/accuracy"] == facts["test"]["accuracy"]


def test_what_is_registered_is_the_file_that_was_tested(searched):
    from mlflow import MlflowClient

    folder, facts, _ = searched
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    version = client.get_model_version_by_alias("photos", "champion")
    assert facts["model_uri"] == f"models:/photos/{version.version}"
    model = folder / "mlruns/studies/photos-1/model"
    described = json.loads((model / "model.json").read_text())
    assert described["sha256"] == sha256_file(model / "model.keras") == version.tags["sha256"]
    assert described["classes"] == ["dark", "grey", "light"]
    assert described["test"]["accuracy"] == facts["test"]["accuracy"]
    registered = list(folder.glob("mlruns/photos/models/*/artifacts/data/model.keras"))
    assert [sha256_file(path) for path in registered] == [described["sha256"]]


def test_the_champion_labels_files_as_the_folders_say(searched):
    folder, facts, _ = searched
    out = pipeline(folder, "score", "champion", "photos", "-o", "scores", "--csv", "scores.csv", "--json")
    assert out.returncode == 0, out.stderr
    scored = json.loads(out.stdout)
    assert (scored["rows"], scored["ok"], scored["errors"]) == (73, 72, 1)
    assert scored["model_uri"] == facts["model_uri"]
    assert {path.name for path in (folder / "scores").iterdir()} >= {"MANIFEST.json", "_SUCCESS", "part-00000.parquet"}
    lines = (folder / "scores.csv").read_text().splitlines()
    labelled = [line.split(",")[:2] for line in lines[1:] if ",ok," in line]
    assert sum(path.split("/")[1] == label for path, label in labelled) >= 71
    for path in ("scores", "scores.csv"):
        (folder / path).rename(folder.parent / f"{folder.name}-{path}")


def test_the_model_loads_with_plain_mlflow_and_keras(searched):
    import mlflow

    folder, facts, _ = searched
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    try:
        native = mlflow.keras.load_model(facts["model_uri"])
        wrapped = mlflow.pyfunc.load_model(facts["model_uri"])
    finally:
        mlflow.set_tracking_uri(None)
    images = np.full((2, 10, 12, 1), 40, np.uint8)
    assert native.input.dtype == "uint8"
    assert wrapped.predict(images)["label"].tolist() == ["dark", "dark"]
    assert np.asarray(native(images)).argmax(axis=1).tolist() == [0, 0]


def test_the_same_command_and_resuming_a_finished_study_show_its_result(searched):
    folder, facts, _ = searched
    again = pipeline(folder, "search", "photos", "--trials", "4", "--name", "photos-1", *OPTIONS)
    assert again.returncode == 0, again.stderr
    assert "study photos-1 is finished already" in again.stderr
    resumed = pipeline(folder, "search", "--resume", "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(again.stdout) == json.loads(resumed.stdout) == facts


def test_resuming_with_another_seed_or_other_data_is_refused_with_the_difference(searched):
    folder, _, _ = searched
    seed = pipeline(folder, "search", "photos", "--trials", "4", "--resume", "--seed", "7", *OPTIONS)
    assert (seed.returncode, "seed: was 0, is 7" in seed.stderr) == (2, True)
    extra = write_picture(folder / "photos" / "grey" / "extra.png", 100)
    data = pipeline(folder, "search", "photos", "--trials", "4", "--resume", *OPTIONS)
    extra.unlink()
    assert (data.returncode, "the images have changed (content, labels" in data.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("nowhere",), 3, "nowhere: no such file or folder; DATA may be a built-in set (digits, mnist, fashion-mnist"),
        (("photos", "--space", "cnnn"), 2, "cnn"),
        (("photos", "--budget", "soon"), 2, "'soon' is not a duration; write a number with a unit, such as 90s"),
        (("photos", "--name", "../x"), 2, "'../x' cannot be the name of a study"),
        (("photos", "--resume", "--name", "never"), 2, "study never not found"),
        (("photos", "--trials", "0"), 2, "0 is not in the range x>=1"),
        (
            ("photos", "--until", "accuracy"),
            2,
            "'accuracy' is not a goal; write METRIC=NUMBER, where METRIC is one of",
        ),
        (
            ("photos", "--until", "val_auc=0.9", "--objective", "val_loss"),
            2,
            "--until val_auc=0.9: the objective is val_loss; use the same metric in --until and --objective",
        ),
    ],
)
def test_what_cannot_be_followed_is_said_before_any_time_is_spent(searched, arguments, code, message):
    done = pipeline(searched[0], "search", *arguments)
    assert (done.returncode, message in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr


HELPED = """
import keras
from my_sizes import UNITS


def build(hp, image_shape, num_classes):
    units = hp.Choice("units", UNITS)
    return keras.Sequential([keras.Input(image_shape), keras.layers.Flatten(), keras.layers.Dense(units),
                             keras.layers.Dense(num_classes)])
"""


def test_a_study_goes_on_only_with_the_modules_that_its_code_imported(tmp_path):
    write_photos(tmp_path)
    (tmp_path / "net.py").write_text(HELPED)
    helper = tmp_path / "my_sizes.py"
    helper.write_text("UNITS = [4, 8]\n")
    arguments = ("search", "photos", "--space", "net.py:build", "--workers", "1", "--epochs", "3", "--name", "mine")
    begun = pipeline(tmp_path, *arguments, "--trials", "1")
    assert begun.returncode == 0, begun.stderr
    helper.write_text("UNITS = [4, 8]  # as before\n")
    refused = pipeline(tmp_path, "search", "--resume", "--name", "mine")
    assert refused.returncode == 2
    assert "study mine cannot be resumed: space: my_sizes.py changed, which net.py imports; expected" in refused.stderr
    helper.write_text("UNITS = [4, 8]\n")
    resumed = pipeline(tmp_path, "search", "--resume", "--name", "mine")
    assert resumed.returncode == 0, resumed.stderr


def test_a_dry_run_writes_nothing_and_says_what_would_happen(tmp_path):
    write_photos(tmp_path)
    done = pipeline(tmp_path, "search", "photos", "--budget", "10m", "--dry-run", *OPTIONS)
    plan = json.loads(done.stdout)
    assert plan["images"] == {"train": 48, "val": 9, "test": 15}
    assert plan["classes"] == ["dark", "grey", "light"]
    assert {name: plan["image"][name] for name in ("height", "width", "channels", "dtype")} == {
        "height": 10, "width": 12, "channels": 1, "dtype": "uint8",
    }  # fmt: skip
    assert plan["params"] == ["depth", "filters", "pooling", "learning_rate", "batch_size"]
    assert len(plan["trial_seconds"]) == len(plan["epochs"]) == 3
    assert plan["seconds"] == plan["budget_seconds"] == 600
    assert plan["command"] == "pipeline search photos --name photos-1 --budget 600s --space ./tiny.yaml --workers 1"
    assert not (tmp_path / "mlruns").exists()


@pytest.mark.parametrize(("oracle", "workers"), [("grid", "2"), ("bayesian", "1")])
def test_other_oracles_and_two_workers(tmp_path, oracle, workers):
    write_photos(tmp_path)
    space = tmp_path / "tiny.yaml"
    space.write_text(
        space.read_text().replace(
            "{type: float, min_value: 0.01, max_value: 0.03, sampling: log", "{type: choice, values: [0.01, 0.02, 0.03]"
        )
    )
    done = pipeline(tmp_path, "search", "photos", "--trials", "2", *OPTIONS, "--oracle", oracle, "--workers", workers)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["trials"]["completed"] == 2


def test_flip_averaging_is_decided_by_validation_and_is_in_the_model_that_is_saved(tmp_path):
    from pipeline.bundle import load_model, read_bundle

    write_photos(tmp_path)
    wanted = ("--average-flips", "--objective", "val_loss", "--trials", "1")
    done = pipeline(tmp_path, "search", "photos", *OPTIONS, *wanted)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    average = facts["flip_average"]
    assert average["is_kept"] == (average["averaged"] < average["alone"])
    model = read_bundle(tmp_path / "mlruns/studies/photos-1/model")
    assert to_json(model.card.evaluation.flip_average) == average
    assert model.card.mflops == facts["winner"]["mflops"]
    images = np.random.default_rng(0).integers(0, 255, (4, *model.image.shape)).astype(model.image.dtype)
    sums = [load_model(model).predict_on_batch(each).sum() for each in (images, images[:, :, ::-1])]
    assert (abs(sums[0] - sums[1]) < 1e-3) == average["is_kept"]
    assert facts["search_gain"]["reason"] == ""
    scored = pipeline(tmp_path, "score", facts["model_uri"], "photos/dark", "--out", "labels")
    assert scored.returncode == 0, scored.stderr


def test_the_mean_of_several_networks_answers_if_validation_says_so(tmp_path):
    from mlflow import MlflowClient

    from pipeline.bundle import load_model, read_bundle
    from pipeline.search.storage.store import StudyStore

    write_photos(tmp_path)
    wanted = ("--ensemble", "--objective", "val_loss", "--trials", "1")  # of which a mean is never worse
    done = pipeline(tmp_path, "search", "photos", *OPTIONS, *wanted)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    found, winner = facts["ensemble"], facts["winner"]
    assert found["is_kept"], found
    assert found["averaged"] < found["alone"]
    assert (winner["val_loss"], found["winner"], found["num_networks"]) == (found["averaged"], winner["trial"], 3)
    assert len(set(found["epochs"])) == 1 < winner["epochs"]
    assert "testing whether an ensemble of networks like the winner's is better" in done.stderr
    assert "by the mean of 3 networks like the winner's: val_loss of two" in done.stderr
    study = tmp_path / "mlruns/studies/photos-1"
    bundle = read_bundle(study / "model")
    assert (to_json(bundle.card.evaluation.ensemble), bundle.card.num_params) == (found, winner["num_params"])
    store = StudyStore(study / "study.db")
    (row,), (twin,) = store.trials(), store.attempts(TrainingKind.SECOND_SEED)
    store.close()
    assert found["alone"] == pytest.approx((row.score + twin.score) / 2, rel=0.01)
    assert winner["num_params"] == 3 * row.num_params == load_model(bundle).count_params()
    assert winner["mflops"] == pytest.approx(3 * row.mflops)
    name, version = facts["model_uri"].removeprefix("models:/").split("/")
    tags = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").get_model_version(name, version).tags
    assert tags["pipeline.num_networks"] == "3"


@pytest.fixture
def distilled(tmp_path):
    """A workspace in which a search distilled, the trials at both ends of its front, and how to promote the first."""
    write_photos(tmp_path)
    wanted = ("--minimise", "params", "--distill", "--objective", "val_loss", "--trials", "4")
    done = pipeline(tmp_path, "search", "photos", *OPTIONS, *wanted)
    assert done.returncode == 0, done.stderr
    front = json.loads(done.stdout)["front"]

    def promote():
        taken = pipeline(tmp_path, "promote", "photos-1", "--pick", str(front[0]["trial"]), "--json")
        assert taken.returncode == 0, taken.stderr
        return json.loads(taken.stdout), taken.stderr

    return tmp_path, front[0], front[-1], promote


def test_a_cheaper_network_learns_from_the_best_one_if_validation_says_so(distilled):
    from mlflow import MlflowClient

    from pipeline.bundle import read_bundle
    from pipeline.search.storage.store import StudyStore

    folder, cheapest, best, promote = distilled
    study = folder / "mlruns/studies/photos-1"
    assert cheapest["trial"] != best["trial"]
    facts, answers = promote()
    found = facts["distillation"]
    assert (found["student"], found["teacher"]) == (cheapest["trial"], best["trial"])
    assert (found["alone"], found["is_kept"]) == (cheapest["val_loss"], False)  # what is softened has a large loss
    assert found["taught"] > found["alone"]
    assert facts["winner"]["val_loss"] == found["alone"]
    assert "not used: no better on the validation images" in answers
    spread = np.load(study / "model/test_logits.npz")["logits"].std()

    store = StudyStore(study / "study.db")
    found |= {"is_kept": True, "reason": ""}
    store.put("distillation", found)
    store.close()
    facts, answers = promote()
    assert facts["winner"]["val_loss"] == found["taught"]
    assert f"the winner is distilled from trial {best['trial']}" in answers
    assert to_json(read_bundle(study / "model").card.evaluation.distillation) == found
    assert np.load(study / "model/test_logits.npz")["logits"].std() < 0.7 * spread  # it learnt softened answers
    name, version = facts["model_uri"].removeprefix("models:/").split("/")
    tags = MlflowClient(f"sqlite:///{folder}/mlflow.db").get_model_version(name, version).tags
    assert tags["pipeline.taught_by_trial"] == str(best["trial"])


def test_a_search_is_tracked_by_a_server_and_scored_from_it(tmp_path, server):
    from mlflow import MlflowClient

    write_photos(tmp_path)
    arguments = ("search", "photos", "--trials", "1", "--name", "remote", *OPTIONS)
    done = pipeline(tmp_path, *arguments, MLFLOW_TRACKING_URI=server)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert not (tmp_path / "mlflow.db").exists()
    client = MlflowClient(server)
    runs = client.search_runs([client.get_run(facts["run_id"]).info.experiment_id])
    assert sorted(run.info.status for run in runs) == ["FINISHED"] * 2
    out = pipeline(tmp_path, "score", "champion", "photos/dark", "-o", "out", "--json", MLFLOW_TRACKING_URI=server)
    assert out.returncode == 0, out.stderr
    assert json.loads(out.stdout)["ok"] == 24


def test_a_search_without_its_server_goes_on_and_is_sent_later(tmp_path):
    write_photos(tmp_path)
    done = pipeline(tmp_path, "search", "photos", "--trials", "1", *OPTIONS, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["model_uri"].endswith("mlruns/studies/photos-1/model")
    assert facts["run_id"] is None
    assert "`pipeline sync photos-1` finishes it" in done.stderr
    assert "pipeline sync photos-1 " in done.stderr  # among the next steps
    synced = pipeline(tmp_path, "sync", "photos-1", "--json")  # MLflow is the local file now
    assert synced.returncode == 0, synced.stderr
    (study,) = json.loads(synced.stdout)["studies"]
    assert (study["model_uri"], study["is_registered"]) == ("models:/photos/1", True)
