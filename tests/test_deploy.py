"""What is deployed: manifests against the schema and each other, the Dockerfile against the sources."""

from __future__ import annotations

import ast
import importlib.metadata
import inspect
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src"
FOLDER = ROOT / "deploy" / "kubernetes"
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
OTHERS = {"kustomization.yaml", "secret.example.yaml"}
MANIFESTS = {
    path.name: yaml.safe_load(path.read_text()) for path in sorted(FOLDER.glob("*.yaml")) if path.name not in OTHERS
}
SECRET = yaml.safe_load((FOLDER / "secret.example.yaml").read_text())
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()


def manifest(kind: str) -> dict[str, Any]:
    (found,) = [m for m in MANIFESTS.values() if m["kind"] == kind]
    return found


def pod() -> dict[str, Any]:
    return manifest("Deployment")["spec"]["template"]["spec"]


def container() -> dict[str, Any]:
    (found,) = pod()["containers"]
    return found


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions and their arguments, lines joined and comments left out."""
    lines = [line for line in DOCKERFILE.splitlines() if line.strip() and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in joined.splitlines()]


def arguments_of(instruction: str) -> list[str]:
    return [arguments for name, arguments in instructions() if name == instruction]


# --- manifests


def test_the_list_of_manifests_is_complete() -> None:
    assert sorted(KUSTOMIZATION["resources"]) == sorted(MANIFESTS)
    assert {image["name"] for image in KUSTOMIZATION["images"]} == {container()["image"]}


@pytest.mark.parametrize("name", [*MANIFESTS, "secret.example.yaml"])
@pytest.mark.parametrize("version", ["1.31", kubernetes_validate.latest_version()])
def test_manifests_fit_the_schema(name: str, version: str) -> None:
    plain = SECRET if name.startswith("secret") else MANIFESTS[name]
    kubernetes_validate.validate(plain, version, strict=True)


def test_the_schema_is_looked_at() -> None:
    wrong = manifest("Deployment") | {"spec": manifest("Deployment")["spec"] | {"replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, kubernetes_validate.latest_version(), strict=True)


def test_selectors_find_the_pods() -> None:
    labels = manifest("Deployment")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        manifest("Deployment")["spec"]["selector"]["matchLabels"],
        manifest("Service")["spec"]["selector"],
        manifest("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        manifest("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]
    assert all(selector and selector.items() <= labels.items() for selector in selectors)


def test_names_that_refer_to_something_exist() -> None:
    target = manifest("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    deployment = manifest("Deployment")
    assert target == {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment["metadata"]["name"]}
    volumes = {volume["name"]: volume for volume in pod()["volumes"]}
    assert {mount["name"] for mount in container()["volumeMounts"]} == set(volumes)
    claim = manifest("PersistentVolumeClaim")
    assert volumes["models"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert volumes["keys"]["secret"]["secretName"] == SECRET["metadata"]["name"]


def test_ports_and_probes_agree() -> None:
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    assert ports == {"http": 8000}
    assert [p["targetPort"] for p in manifest("Service")["spec"]["ports"]] == ["http"]
    assert [p["port"] for rule in manifest("NetworkPolicy")["spec"]["ingress"] for p in rule["ports"]] == ["http"]
    probes = {name: container()[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert all(probe["port"] == "http" for probe in probes.values())
    paths = {name.removesuffix("Probe"): probe["path"] for name, probe in probes.items()}
    assert paths == {"startup": "/health/ready", "liveness": "/health/live", "readiness": "/health/ready"}
    assert "--port=8000" in container()["args"]
    scraped = manifest("Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert scraped["prometheus.io/port"] == "8000"
    assert arguments_of("EXPOSE") == ["8000"]


def strings_of(path: Path) -> set[str]:
    return {
        n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant) and type(n.value) is str
    }


def test_the_paths_are_routes_of_the_app() -> None:
    said = set().union(*(strings_of(path) for path in (SOURCES / "serve").rglob("*.py")))
    probes = {container()[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert probes | {"/metrics"} <= said
    assert re.search(r"http://127\.0\.0\.1:8000(/[\w/]+)", arguments_of("HEALTHCHECK")[0])[1] in said


def test_the_autoscaler_reads_a_metric_that_there_is() -> None:
    (metric,) = manifest("HorizontalPodAutoscaler")["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    assert name in strings_of(SOURCES / "serve" / "processes" / "metrics.py")
    assert name in (ROOT / "docs" / "deployment.md").read_text()


def test_the_pod_has_no_more_rights_than_it_needs() -> None:
    user = arguments_of("USER")[-1].split(":")[0]
    assert pod()["securityContext"]["runAsNonRoot"]
    assert str(pod()["securityContext"]["runAsUser"]) == user != "0"
    assert pod()["automountServiceAccountToken"] is False
    limits = container()["securityContext"]
    assert limits["readOnlyRootFilesystem"]
    assert not limits["allowPrivilegeEscalation"]
    assert limits["capabilities"] == {"drop": ["ALL"]}


def test_the_pod_has_time_to_stop() -> None:
    from serve.processes.launch import serve_forever

    leaving = int(container()["lifecycle"]["preStop"]["exec"]["command"][1])
    parameters = inspect.signature(serve_forever).parameters
    assert pod()["terminationGracePeriodSeconds"] > leaving + 2 * parameters["grace"].default


def test_what_is_written_can_be_written() -> None:
    writable = {mount["mountPath"] for mount in container()["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"/models", "/tmp"}
    environment = dict(pair.split("=", 1) for pair in shlex.split(arguments_of("ENV")[0]))
    assert environment["HOME"] == arguments_of("WORKDIR")[-1] == "/tmp"
    assert environment["ORT_DISABLE_TELEMETRY"] == "1"


def test_the_example_of_keys_can_be_read(tmp_path: Path) -> None:
    from serve.keys import Keys

    (name,) = [json.loads(arguments_of("CMD")[-1])[-1].rsplit("/", 1)[1]]
    (tmp_path / name).write_text(SECRET["stringData"][name])
    assert [key.name for key in Keys(tmp_path / name).known()] == ["example"]
    assert f"--keys=/keys/{name}" in container()["args"]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kustomize_builds_it() -> None:
    built = subprocess.run(["kubectl", "kustomize", str(FOLDER)], capture_output=True, text=True, check=True).stdout
    found = list(yaml.safe_load_all(built))
    assert sorted(m["kind"] for m in found) == sorted(m["kind"] for m in MANIFESTS.values())
    (deployment,) = [m for m in found if m["kind"] == "Deployment"]
    image = KUSTOMIZATION["images"][0]
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == f"{image['newName']}:{image['newTag']}"


# --- image


def requirements() -> list[Requirement]:
    printed = subprocess.run(
        [sys.executable, ROOT / "deploy" / "requirements.py"], capture_output=True, text=True, check=True
    ).stdout
    return [Requirement(line) for line in printed.splitlines()]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_everything_that_is_copied_exists() -> None:
    ignored = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().split()
    for arguments in arguments_of("COPY"):
        *sources, _ = shlex.split(arguments)
        if not sources[0].startswith("--from"):
            assert all((ROOT / source).exists() and f"!{source}" in ignored for source in sources), sources


def test_signals_reach_the_server_and_it_is_not_root() -> None:
    names = [name for name, _ in instructions()]
    assert json.loads(arguments_of("ENTRYPOINT")[-1]) == ["python", "-m", "serve"]
    assert all(isinstance(word, str) for word in json.loads(arguments_of("CMD")[-1]))
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert len(arguments_of("HEALTHCHECK")) == 1


def test_the_image_has_what_the_project_says_and_no_torch() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {canonical(Requirement(r).name) for r in project["dependencies"]}
    served = {canonical(Requirement(r).name) for r in project["optional-dependencies"]["serve"]}
    installed = {canonical(r.name) for r in requirements()}
    assert served <= installed <= served | declared
    training = {"hydra-core", "omegaconf", "onnxscript", "pytorch-lightning", "pyyaml", "rich", "torch", "torchmetrics"}
    assert declared - installed == training
    assert not installed_with(installed) & {"torch", "pytorch-lightning", "lightning", "hydra-core"}


def installed_with(names: set[str]) -> set[str]:
    """Return distributions and all that they need."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [canonical(need) for need in needs_of(name)]
    return found


def needs_of(name: str, extra: str = "") -> Iterator[str]:
    """Give what a distribution needs with an extra; without one, what it needs anyway."""
    for requirement in map(Requirement, importlib.metadata.requires(name) or ()):
        if not requirement.marker or requirement.marker.evaluate({"extra": extra}):
            yield requirement.name
            for inner in requirement.extras:  # uvicorn[standard]
                yield from needs_of(requirement.name, inner)


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(SOURCES.rglob("*.py")):
        parts = path.relative_to(SOURCES).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def reached() -> tuple[set[str], set[str]]:
    """Walk from the server's modules: our modules, and the libraries that they import, also inside functions."""
    ours = modules()
    seen: set[str] = set()
    libraries: set[str] = set()
    waiting = [name for name in ours if name.split(".")[0] == "serve"]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name == "rootdata":  # it imports what is asked of it, when it is
            continue
        for imported in imports_of(ours[name]):
            if imported in ours:
                waiting.append(imported)
            elif imported.split(".")[0] not in {"serve", "rootdata"} | set(sys.stdlib_module_names):
                libraries.add(imported.split(".")[0])
    return seen, libraries


def test_the_server_imports_nothing_that_is_not_installed() -> None:
    ours, libraries = reached()
    assert {"rootdata.bundle.assemble", "rootdata.io.files"} <= ours
    assert {"numpy", "onnxruntime"} <= libraries
    homes = importlib.metadata.packages_distributions()
    installed = installed_with({canonical(r.name) for r in requirements()})
    strangers = {name for name in libraries if not {canonical(d) for d in homes.get(name, [])} & installed}
    assert strangers == set()


def test_the_server_is_imported_without_what_training_needs() -> None:
    names = sorted(n for n in modules() if n.split(".")[0] == "serve" and not n.endswith("__main__"))
    blocked = ("torch", "lightning", "pytorch_lightning", "hydra", "numba", "omegaconf", "onnxscript", "rich")
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked!r})); import {', '.join(names)}"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(SOURCES)}
    )
    assert done.returncode == 0, done.stderr


def test_the_server_understands_what_it_is_told() -> None:
    from serve.__main__ import _serve_parser

    for given in (json.loads(arguments_of("CMD")[-1]), container()["args"]):
        parsed = _serve_parser().parse_args(given)
        assert (str(parsed.models), parsed.host, parsed.port) == ("/models", "0.0.0.0", 8000)
        assert str(parsed.keys) == "/keys/keys.jsonl"


def test_the_metrics_of_the_documentation_exist() -> None:
    documented = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "deployment.md").read_text(), re.MULTILINE)
    named = strings_of(SOURCES / "serve" / "processes" / "metrics.py")
    assert len(documented) > 5
    assert [name for name in documented if name.removesuffix("_total") not in named] == []
