"""One hyperparameter keeps its name and value from YAML to the finished model."""

import json

import pytest

from pipeline.models.plan import plan_layers
from pipeline.records import Objective
from pipeline.space import load_space
from tests.cli.workspace import pipeline, write_photos

pytestmark = pytest.mark.heavy


def test_pooling_from_yaml_to_model_json_and_mlflow(tmp_path):
    from mlflow import MlflowClient

    from pipeline.models.measure import measure
    from pipeline.search.oracles import Proposer

    write_photos(tmp_path)
    path = tmp_path / "tiny.yaml"
    path.write_text(
        path.read_text().replace("pooling: {type: choice, values: [max, avg]}", "pooling: {type: fixed, value: avg}")
    )
    path.write_text(
        path.read_text().replace("{type: int, min_value: 1, max_value: 2, default: 1}", "{type: fixed, value: 2}")
    )
    space = load_space(str(path))
    assert [param.default for param in space.params if param.name == "pooling"] == ["avg"]
    proposed = Proposer("random", space, 0, Objective(), 1).propose(0, lambda proposal: True)
    assert proposed is not None
    assert proposed.params["pooling"] == "avg"
    assert "avg_pool" in [layer.kind for layer in plan_layers(proposed.params, 3)]
    assert measure(proposed.params, (10, 12, 1), 3).num_params > 0

    done = pipeline(tmp_path, "search", "photos", "--trials", "1", "--space", "./tiny.yaml", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["winner"]["params"]["pooling"] == "avg"
    model = json.loads((tmp_path / "mlruns/studies/photos-1/model/model.json").read_text())
    assert model["params"]["pooling"] == "avg"
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("photos").experiment_id], "tags.`trial.number` = '0'")
    assert runs[0].data.params["pooling"] == "avg"
