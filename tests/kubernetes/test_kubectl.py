"""kubectl against the embedded API and a real one: what it prints may not differ.

A scene is a file of command lines of kubectl, without the word itself, in `scenes/`. `edit:SCRIPT`
before one makes sed with that script kubectl's editor; `uid:OBJECT` writes the uid of an object
into the manifests.
"""

import re
import shlex
import shutil
import subprocess
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
]
"""What no two servers share: pattern and what it becomes."""

DIFFERENT = [
    # A CRD's schema is checked before its rules; the embedded API checks both at once.
    (r"\n\* <nil>: Invalid value: null: some validation rules were not checked.*", ""),
    (r"is invalid: \n\* (.*)(?=\n(?!\*)|$)", r"is invalid: \1"),
    # A pod's containers are Go values there, and their differences are shown.
    (r"(pod updates may not change fields other than)(?s:.*)", r"\1 ..."),
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
