"""The recipes of the page about deployment, which no test can run: their commands exist, and their numbers fit."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management.base import CommandParser

from django_tasks import health
from django_tasks.management.commands.runworker import Command

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "deploy.md"


def blocks(language: str) -> list[str]:
    """Return the text of all blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def sections() -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the sections of what is in the form of INI files."""
    for text in blocks("ini"):
        parser = ConfigParser(interpolation=None)
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read_string(text)
        yield from ((name, dict(parser[name])) for name in parser.sections())


def words_of(command: list[str]) -> list[str]:
    """Return what ``runworker`` is given by a command line."""
    assert command[1:3] == ["manage.py", "runworker"], command
    assert Path(command[0]).name == "python", command
    return command[3:]


def commands() -> Iterator[tuple[list[str], float | None]]:
    """Yield every command line of a worker, with the seconds after which whatever stops it would kill it."""
    for name, options in sections():
        if name == "Service":
            yield shlex.split(options["ExecStart"]), float(options["TimeoutStopSec"])
        elif name.startswith("program:"):
            yield shlex.split(options["command"]), float(options["stopwaitsecs"])
    for text in blocks("yaml"):
        found: dict[str, Any] = yaml.safe_load(text)
        if "services" in found:
            for service in found["services"].values():
                yield service["command"], float(service["stop_grace_period"].removesuffix("s"))
        else:
            pod = found["spec"]["template"]["spec"]
            yield pod["containers"][0]["command"], float(pod["terminationGracePeriodSeconds"])
    for text in blocks("dockerfile"):
        [words] = re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE)
        yield json.loads(words), None


@pytest.mark.parametrize(
    ("command", "patience"), [pytest.param(*one, id=shlex.join(one[0])[-60:]) for one in commands()]
)
def test_a_recipe_starts_a_worker_and_waits_longer_than_it_takes_to_stop(
    command: list[str], patience: float | None
) -> None:
    parser = CommandParser(prog="runworker", called_from_command_line=False)
    Command().add_arguments(parser)
    options = parser.parse_args(words_of([str(word) for word in command]))
    if patience is not None:
        assert float(options.shutdown_timeout) < patience


def test_there_is_a_recipe_for_each_platform() -> None:
    assert len(list(commands())) == 6
    assert len(blocks("ini")) == 2
    assert len(blocks("yaml")) == len(blocks("dockerfile")) == 2


def test_the_probes_of_kubernetes_ask_the_port_that_the_worker_serves() -> None:
    [found] = [each for text in blocks("yaml") if "kind" in (each := yaml.safe_load(text))]
    [container] = found["spec"]["template"]["spec"]["containers"]
    [port] = container["ports"]
    command = container["command"]
    assert command[command.index("--probe-port") + 1] == str(port["containerPort"])
    asked = {kind: container[kind]["httpGet"] for kind in ("livenessProbe", "readinessProbe")}
    assert asked == {
        "livenessProbe": {"path": "/livez", "port": port["name"]},
        "readinessProbe": {"path": "/readyz", "port": port["name"]},
    }


def test_the_health_check_of_docker_looks_at_the_file_that_the_worker_touches(tmp_path: Path) -> None:
    [text] = [text for text in blocks("dockerfile") if "HEALTHCHECK" in text]
    probe, worker = (json.loads(words) for words in re.findall(r"CMD (\[.*\])$", text, re.MULTILINE))
    assert probe[:3] == ["python", "-m", "django_tasks.health"]
    assert worker[worker.index("--health-file") + 1] == probe[3]
    file = tmp_path / "worker"
    file.touch()
    assert health.main([str(file), *probe[4:]]) == 0
