import tarfile

import pytest

from squall.errors import InvalidFault
from squall.installation.bundle import Bundle, write
from squall.installation.manifests import objects
from squall.installation.settings import Settings


@pytest.fixture
def image(tmp_path):
    file = tmp_path / "squall.tar"
    file.write_bytes(b"layers" * 1000)
    return file


def damaged(source, target, name, data):
    """Copy an archive with another content for one file."""
    with tarfile.open(source) as old, tarfile.open(target, "w") as new:
        for entry in old:
            file = old.extractfile(entry)
            if entry.name.endswith(name):
                if data is None:
                    continue
                (target.parent / "other").write_bytes(data)
                entry.size = len(data)
                file = (target.parent / "other").open("rb")
            with file:
                new.addfile(entry, file)
    return target


def test_what_is_installed_from_a_bundle_is_what_this_version_installs(tmp_path, image):
    write(tmp_path / "b.tar", Settings(), [image])
    bundle = Bundle(tmp_path / "b.tar")
    assert objects(Settings(), bundle) == objects(Settings())


def test_a_bundle_holds_all_that_is_needed_and_is_the_same_each_time(tmp_path, image):
    names = write(tmp_path / "a.tar", Settings(), [image])
    write(tmp_path / "b.tar", Settings(), [image])
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    assert {
        "README.md",
        "SHA256SUMS",
        "images.txt",
        "images/squall.tar",
        "chart/squall/Chart.yaml",
        "crds/networkchaos.chaos-mesh.org.yaml",
        "manifests/squall.yaml",
    } <= set(names)


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("images/squall.tar", b"other layers", "images/squall.tar was changed"),
        ("templates/cluster.yaml", None, "templates/cluster.yaml is missing"),
        ("SHA256SUMS", None, "is no bundle of squall"),
    ],
)
def test_a_damaged_bundle_is_refused_by_name(tmp_path, image, name, data, told):
    write(tmp_path / "b.tar", Settings(), [image])
    broken = damaged(tmp_path / "b.tar", tmp_path / "broken.tar", name, data)
    with pytest.raises(InvalidFault, match=told):
        Bundle(broken)


def test_what_is_no_archive_is_refused(tmp_path, image):
    with pytest.raises(InvalidFault, match="is no bundle of squall"):
        Bundle(image)


def test_its_manifests_name_the_images_that_it_lists(tmp_path, image):
    chosen = Settings(image="registry.local/s:1", pause_image="registry.local/p:2")
    write(tmp_path / "b.tar", chosen, [image])
    with tarfile.open(tmp_path / "b.tar") as archive:
        texts = {
            name: archive.extractfile(f"squall-bundle/{name}").read().decode()
            for name in ("images.txt", "manifests/squall.yaml")
        }
    assert texts["images.txt"].split() == ["registry.local/p:2", "registry.local/s:1"]
    for name in texts["images.txt"].split():
        assert name in texts["manifests/squall.yaml"]
    assert "registry.k8s.io" not in texts["manifests/squall.yaml"]
