"""`pipeline promote`: what it refuses before any time is spent."""

from click.testing import CliRunner

from pipeline.cli.main import cli


def run(*arguments: str):
    return CliRunner().invoke(cli, ["promote", *arguments])


def test_an_unknown_study_is_said(folder):
    done = run("photos-9", "--pick", "3")
    assert done.exit_code == 2
    assert "study photos-9 not found" in done.stderr
    assert "found photos-1" in done.stderr


def test_a_damaged_study_is_named(folder):
    (folder / "study.db").write_bytes(b"no database" * 1000)
    done = run("photos-1", "--pick", "3")
    assert (done.exit_code, f"{folder}/study.db: file is not a database" in done.stderr) == (3, True)
