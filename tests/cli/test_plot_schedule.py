from pathlib import Path

import pytest
import yaml
from PIL import Image

from lightning_recipes.plots import learning_rate
from lightning_recipes.schedules import SHAPES

from .conftest import TINY


def table(out):
    """Return the table's first column to its other cells."""
    lines = [line for line in out.splitlines() if line.startswith(("│", "┃"))]
    cells = [[cell.strip() for cell in line.replace("┃", "│").strip("│").split("│")] for line in lines]
    return {first: others for first, *others in cells}


def test_a_picture_and_a_table_of_several_shapes(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    status, out, err = run(
        *("plot-schedule", "--shape", "cosine", "step", "--warmup", "10", "--warmup_unit", "epochs"),
        *("--lr", "0.5", "--steps", "1000", "--epochs", "100", "--output", "new/rates.png"),
    )
    assert status == 0, err
    assert out.splitlines()[-1] == "schedule: new/rates.png"
    assert [path.name for path in Path("new").iterdir()] == ["rates.png"]  # nothing half-written beside it
    assert Image.open("new/rates.png").size[0] > 1000
    found = table(out)
    assert found["at step"] == ["0", "100", "250", "500", "750", "999"]
    assert found["at epoch"] == ["0", "10", "25", "50", "75", "99.9"]
    assert found["step"] == ["0", "0.5", "0.5", "0.05", "0.005", "0.0005"]
    assert found["cosine"][:2] == ["0", "0.5"]
    assert found["cosine"][-1] == "0"


def test_one_shape_shows_its_factors_and_steps_do_without_epochs(run):
    status, out, _ = run(
        *("plot-schedule", "--shape", "step", "--every", "0.5", "--unit", "fraction", "--lr", "2"),
        *("--steps", "8", "--epochs", "null"),
    )
    assert status == 0
    rows = [line.split("│")[1:-1] for line in out.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["step", "2", "2", "0.2", "0.2", "0.2"],
        ["factor", "1", "1", "0.1", "0.1", "0.1"],
    ]
    assert "epoch" not in out
    assert Path("schedule.png").exists()


def test_every_shape_is_drawn_by_default_settings_and_in_other_formats(run):
    status, out, _ = run("plot-schedule", "--shape", *SHAPES, "--output", "all.svg", "--steps", "600")
    assert status == 0
    assert set(SHAPES) <= set(table(out))
    assert "<svg" in Path("all.svg").read_text()


def test_settings_come_from_a_file_as_they_are_printed(run, capsys):
    with pytest.raises(SystemExit) as ended:
        run("plot-schedule", "--shape", "multi_step", "--milestones", "[20, 50]", "--print_config")
    assert ended.value.code in (0, None)
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["milestones"] == [20, 50]
    Path("schedule.yaml").write_text(printed)
    status, out, _ = run("plot-schedule", "--config", "schedule.yaml", "--lr", "1")
    assert status == 0
    rates = [line.split("│")[2:-1] for line in out.splitlines() if line.startswith("│ multi_step")]
    assert [[cell.strip() for cell in row] for row in rates] == [["1", "0.1", "0.01", "0.01", "0.01"]]


def test_a_picture_is_not_written_over_unasked(run):
    Path("schedule.png").write_text("mine")
    status, _, err = run("plot-schedule")
    assert status == 2
    assert err == "error: schedule.png exists. Give another `--output`, or `--overwrite true`.\n"
    assert Path("schedule.png").read_text() == "mine"
    assert run("plot-schedule", "--overwrite", "true")[0] == 0
    assert Image.open("schedule.png").format == "PNG"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--shape", "cosin"], "got 'cosin'. Did you mean `cosine`?"),
        (
            ["--warmup", "200", "--warmup_unit", "epochs"],
            "shorter than the run, 100 epochs, got 200",
        ),
        (["--shape", "step", "--epochs", "null"], "how many the run has is not known"),
        (["--gama", "1"], "There is no argument `--gama`. Did you mean `--gamma`"),
        (["--lr", "0"], "`--lr` must be above 0, got 0.0."),
        (["--lr", ".inf"], "`--lr` must be above 0, got inf."),
        (["--steps", "0"], "`--steps` must be at least 1, got 0."),
        (["--steps", "many"], "`--steps` must be int, got many."),
        (["--epochs", "0"], "`epochs` must be above 0, got 0"),
        (["--output", "."], "`--output` . is a folder"),
        (["--output", "rates.txt"], "a picture such as schedule.png, .svg or .pdf, got rates.txt"),
        (["--output", "rates"], "a picture such as schedule.png, .svg or .pdf, got rates"),
    ],
)
def test_mistakes_are_one_line(run, arguments, says):
    status, out, err = run("plot-schedule", *arguments)
    assert status == 2
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert says in line
    assert list(Path().iterdir()) == []


def test_a_place_that_cannot_be_written(run):
    Path("file").write_text("")
    status, _, err = run("plot-schedule", "--output", "file/rates.png")
    assert status == 2
    assert "Cannot write to file: " in err
    assert "`output`" in err


def test_the_same_settings_serve_a_run(run):
    given = {"shape": "multi_step", "milestones": "[0.5]", "unit": "fraction", "warmup": "1"}
    given["warmup_unit"] = "steps"
    flags = [part for name, value in given.items() for part in (f"--model.schedule.{name}", value)]
    status, _, err = run("fit", *TINY, *flags, "--run_dir", "run", "--trainer.max_epochs", "1")
    assert status == 0, err
    saved = yaml.safe_load(Path("run/config.yaml").read_text())
    settings = saved["model"]["init_args"]["schedule"]["init_args"]
    assert settings["milestones"] == [0.5]
    assert (settings["warmup"], settings["warmup_unit"], settings["gamma"]) == (1.0, "steps", None)
    again = ("fit", "--config", "run/config.yaml", "--run_dir", "again", "--trainer.max_epochs", "1")
    assert run(*again)[0] == 0
    too_long = ("--model.schedule.warmup", "7", "--model.schedule.warmup_unit", "epochs", "--run_dir", "long")
    status, _, err = run("fit", *TINY, *too_long)
    assert status == 2
    assert "error: `warmup` must be shorter than the run, 2 epochs, got 7." in err
    assert not Path("long").exists()


# The figure


def test_the_figure_shows_the_rates_over_epochs_and_steps():
    rates = {"falling": [0.4, 0.2, 0.0], "flat": [0.1, 0.1, 0.1]}
    figure = learning_rate(rates, positions=[0, 1, 2], steps_per_epoch=50)
    linear, log = figure.axes
    assert [line.get_label() for line in linear.lines] == ["falling", "flat"]
    assert list(linear.lines[0].get_ydata()) == [0.4, 0.2, 0.0]
    assert str(list(log.lines[0].get_ydata())[2]) == "nan"  # a zero has no logarithm
    assert linear.get_ylim()[0] < 0 < 0.4 < linear.get_ylim()[1]
    assert [axis.get_xlabel() for axis in (linear, log)] == ["epoch", "epoch"]
    (above,) = linear.child_axes
    assert above.get_xlabel() == "optimizer step"
    figure.draw_without_rendering()
    assert above.get_xlim() == pytest.approx([50 * bound for bound in linear.get_xlim()])
    plain = learning_rate(rates, positions=[0, 1, 2])
    assert [axis.get_xlabel() for axis in plain.axes] == ["optimizer step"] * 2
    assert plain.axes[0].child_axes == []
