"""kubectl against the embedded API and a real one: what it prints may not differ.

A scene is a file of command lines of kubectl, without the word itself, in `scenes/`. `edit:SCRIPT`
before one makes sed with that script kubectl's editor; `uid:OBJECT` writes the uid of an object
into the manifests.
"""

import re
import shlex
import shutil
import subprocess
import uuid
from concurrent.futures import ThreadPoolExecutor
from difflib import unified_diff
from pathlib import Path

import pytest

from testbed.apiserver import ApiServer

pytestmark = pytest.mark.kubernetes

SCENES = Path(__file__).parent / "scenes"

UNSHARED = [
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UID"),
    (r"\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME"),
    (r'(resourceVersion"?|Resource Version): *"?\d+"?', "VERSION"),
    (r"https://127\.0\.0\.1:\d+", "SERVER"),
    (r"(?m) +\d+s(?= |$) *", " AGE "),
    (r"/tmp/kubectl-edit-\d+", "EDITED"),
    (r"(?m)^[IWE]\d{4} .*\n", ""),  # kubectl's own log, when its deadline meets an answer
]
"""What no two servers share: pattern and what it becomes."""

DIFFERENT = [
    # A CRD's schema is checked before its rules; the embedded API checks both at once.
    (r"\n\* <nil>: Invalid value: null: some validation rules were not checked.*", ""),
    (r"is invalid: \n\* (.*)(?=\n(?!\*)|$)", r"is invalid: \1"),
    # A pod's containers are Go values there, and their differences are shown.
    (r"(spec: Forbidden: pod updates may not)(?s:.*)", r"\1 ..."),
    # Generic texts about every object; the embedded API has its own.
    (r"(?m)^  (apiVersion|kind|metadata)\t(<\w+>)\n(    .*\n)+", r"  \1 \2\n"),
]
"""Where the embedded API differs on purpose: pattern, and what remains to be compared."""


@pytest.mark.parametrize("scene", sorted(path.stem for path in SCENES.glob("*.txt")))
def test_kubectl_sees_no_difference(
    scene: str, embedded: ApiServer, real: ApiServer, tmp_path: Path
):
    with ThreadPoolExecutor(2) as pool:
        ours = pool.submit(transcript, embedded, scene, tmp_path / "embedded")
        theirs = pool.submit(transcript, real, scene, tmp_path / "real")
    differences = unified_diff(
        theirs.result(), ours.result(), "a real API server", "the embedded API", lineterm="", n=2
    )
    assert not (told := "\n".join(differences)), told


def transcript(server: ApiServer, scene: str, folder: Path) -> list[str]:
    shutil.copytree(SCENES / "manifests", folder)
    namespace = f"scene-{scene}"
    server.run("create", "namespace", namespace)
    said = []
    for step in (SCENES / f"{scene}.txt").read_text().splitlines():
        said += [f"$ kubectl {step}", *kubectl(server, step, namespace, folder)]
    return said


def kubectl(server: ApiServer, step: str, namespace: str, folder: Path) -> list[str]:
    words, editor = shlex.split(step), "true"
    if words[0].startswith("edit:"):
        editor = shlex.join(["sed", "-i", words.pop(0).removeprefix("edit:")])
    if words[0].startswith("uid:"):
        named = words.pop(0).removeprefix("uid:")
        uid = server.run("get", named, f"-n={namespace}", "-o=jsonpath={.metadata.uid}")
        for manifest in folder.glob("*.yaml"):
            manifest.write_text(manifest.read_text().replace("UID_OF_OBJECT", uid))
    if "-n" not in words:
        words += ["-n", namespace]
    done = subprocess.run(
        [server.kubectl, *words],
        cwd=folder,
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(folder),
            "KUBECONFIG": str(server.kubeconfig),
            "KUBE_EDITOR": editor,
        },
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    said = done.stdout + done.stderr
    for pattern, instead in [*UNSHARED, *DIFFERENT]:
        said = re.sub(pattern, instead, said)
    return [*said.strip().splitlines(), f"[{done.returncode}]"]


def test_get_shows_changes_as_they_happen(server: ApiServer):
    namespace = f"watched-{uuid.uuid4().hex[:8]}"
    server.run("create", "namespace", namespace)
    here = f"--namespace={namespace}"
    manifest = str(SCENES / "manifests" / "node-fault.yaml")
    command = [server.kubectl, f"--kubeconfig={server.kubeconfig}", "get", "nodefaults", "-w", here]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout
        server.run("create", here, "-f", manifest)
        assert watching.stdout.readline().startswith("NAME    NODE   EXPERIMENT   PHASE")
        assert watching.stdout.readline().split()[:4] == ["fault", "n1", "delay", "Run"]
        stop = '-p={"spec":{"desiredPhase":"Stop"}}'
        server.run("patch", here, "nodefault", "fault", "--type=merge", stop)
        assert watching.stdout.readline().split()[:4] == ["fault", "n1", "delay", "Stop"]
        server.run("delete", here, "nodefault", "fault")
        assert watching.stdout.readline().split()[:4] == ["fault", "n1", "delay", "Stop"]
        watching.terminate()


def test_waiting_ends_when_the_condition_comes(server: ApiServer):
    namespace = f"awaited-{uuid.uuid4().hex[:8]}"
    server.run("create", "namespace", namespace)
    here = f"--namespace={namespace}"
    server.run("create", here, "-f", str(SCENES / "manifests" / "delay.yaml"))
    wanted = ["wait", here, "networkchaos/delay", "--timeout=20s"]
    with ThreadPoolExecutor(1) as pool:
        injected = pool.submit(server.run, *wanted, "--for=condition=AllInjected")
        status = (
            '-p={"status":{"experiment":{"desiredPhase":"Run"},'
            '"conditions":[{"type":"AllInjected","status":"True"}]}}'
        )
        named = ["patch", here, "networkchaos", "delay", "--type=merge", "--subresource=status"]
        server.run(*named, status)
        assert injected.result() == "networkchaos.chaos-mesh.org/delay condition met\n"
        gone = pool.submit(server.run, *wanted, "--for=delete")
        server.run("delete", here, "networkchaos", "delay")
        gone.result()
