"""From source to pw.x: what is accepted, what is refused and how it is said, and that the work is done once.

The builds here are real, with configure, make, a Fortran compiler and a check, but of a tree of a few lines in the
layout of Quantum ESPRESSO: its pw.x announces itself and writes one eigenvalue.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from sorep.errors import PwError, UsageError
from sorep.single_shot.build import Recipe, build, check_tools, patch_folder
from sorep.single_shot.source import Pin, download_and_unpack, source_lists, unpack

BANNER = "Single-shot mode available: tests, revision 1"
LEVEL = 0.25  # Hartree

TREE = {
    "include/qe_version.h": "CHARACTER (LEN=6) :: version_number = '6.7MaX'\n",
    "configure": "#!/bin/sh\n"
    'test -n "$TEST_NO_BLAS" || blas=-lopenblas\n'
    'printf "MANUAL_DFLAGS =\\nDFLAGS = -D__FFTW3\\nBLAS_LIBS = $blas \\n" > make.inc\n'
    'printf "LAPACK_LIBS_SWITCH = external\\n" >> make.inc\n',
    "Makefile": "pwlibs:\n"
    '\t@test -z "$$TEST_COUNT" || echo built >> "$$TEST_COUNT"\n'
    '\t@test -z "$$TEST_PAUSE" || sleep "$$TEST_PAUSE"\n'
    "\ttouch PW/src/libpw.a\n",
    "PW/Makefile": "pw:\n\tcd src && gfortran -c announce.f90 && gfortran -o pw.x pw.f90 announce.o\n",
    "PW/src/pw.f90": f"""PROGRAM pw
  PRINT '(A)', 'Program PWSCF'
  CALL execute_command_line( 'mkdir -p golden.save' )
  OPEN( 1, FILE = 'golden.save/data-file-schema.xml' )
  WRITE( 1, '(A)' ) '<espresso><eigenvalues size="1">', ' {LEVEL} ', '</eigenvalues></espresso>'
END PROGRAM pw
""",
    "pseudo/X.upf": "of X\n",
}
ANNOUNCE = f"SUBROUTINE announce\n  PRINT '(A)', '     {BANNER}'\nEND SUBROUTINE announce\n"
HOOK = """--- a/PW/src/pw.f90
+++ b/PW/src/pw.f90
@@ -1,4 +1,5 @@
 PROGRAM pw
   PRINT '(A)', 'Program PWSCF'
+  CALL announce
   CALL execute_command_line( 'mkdir -p golden.save' )
   OPEN( 1, FILE = 'golden.save/data-file-schema.xml' )
"""


def lacks_tools() -> bool:
    try:
        check_tools()
    except PwError:
        return True
    return False


needs_tools = pytest.mark.skipif(lacks_tools(), reason="compilers or libraries for pw.x are missing")


def write_files(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o755 if text.startswith("#!") else 0o644)
    return folder


def wait_until(done: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def started_with(cache: Path) -> set[int]:
    """Process numbers of all that were started with this cache folder in their environment."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            if f"SOREP_CACHE={cache}" in (folder / "environ").read_text(errors="replace"):
                found.add(int(folder.name))
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_files(tmp_path / "qe-6.7", TREE)


@pytest.fixture
def pack(tmp_path: Path) -> Callable[[Path], Path]:
    def pack(folder: Path) -> Path:
        with tarfile.open(tmp_path / "qe.tar.gz", "w:gz") as archive:
            archive.add(folder, "some-top-folder")
        return tmp_path / "qe.tar.gz"

    return pack


@pytest.fixture
def pin() -> Pin:
    return Pin("6.7MaX", {name: hashlib.sha256(text.encode()).hexdigest() for name, text in TREE.items()})


@pytest.fixture
def patches(tmp_path: Path, pin: Pin) -> Path:
    calculation = {
        "name": "one level",
        "pseudopotential": "pseudo/X.upf",
        "input": ["&control"],
        "eigenvalues": [[LEVEL]],
    }
    return write_files(
        tmp_path / "patches",
        {
            "source.json": json.dumps({"version": pin.version, "files": pin.files}),
            "golden.json": json.dumps({"banner": BANNER, "tolerance": 1e-8, "calculations": [calculation]}),
            "announce.f90": ANNOUNCE,
            "0001-hook.patch": HOOK,
        },
    )


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SOREP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class TestSource:
    @pytest.mark.parametrize("packed", [False, True])
    def test_holds_exactly_what_was_pinned(self, packed, tree, pack, pin, tmp_path):
        write_files(
            tree, {"PW/src/pw.o": "left by an earlier build", "make.inc": "FFLAGS = -march=native", "Doc/a": ""}
        )
        source = pack(tree) if packed else tree
        digest = unpack(source, pin, tmp_path / "out")
        found = {
            str(p.relative_to(tmp_path / "out")): p.read_text() for p in (tmp_path / "out").rglob("*") if p.is_file()
        }
        assert found == TREE
        assert os.access(tmp_path / "out" / "configure", os.X_OK)
        assert digest == (hashlib.sha256(source.read_bytes()).hexdigest() if packed else "")

    @pytest.mark.parametrize("packed", [False, True])
    def test_names_changed_and_missing_files_and_writes_nothing(self, packed, tree, pack, pin, tmp_path):
        write_files(tree, {"PW/src/pw.f90": TREE["PW/src/pw.f90"] + "! a comment\n"})
        (tree / "PW" / "Makefile").unlink()
        with pytest.raises(PwError) as caught:
            unpack(pack(tree) if packed else tree, pin, tmp_path / "out")
        assert caught.value.code == "source-differs"
        assert caught.value.stage == "set-up"
        assert "1 changed (PW/src/pw.f90), 1 missing (PW/Makefile)" in caught.value.message
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("file", ["include/qe_version.h", "Modules/version.f90"])
    def test_of_another_version_is_refused(self, file, tree, pin, tmp_path):
        (tree / "include" / "qe_version.h").unlink()
        write_files(tree, {file: "CHARACTER (LEN=6) :: version_number = '7.2'\n"})
        with pytest.raises(PwError, match=r"7\.2.*6\.7MaX") as caught:
            unpack(tree, pin, tmp_path / "out")
        assert caught.value.code == "unsupported-version"

    def test_that_is_something_else_is_refused(self, tree, pack, pin, tmp_path):
        archive = pack(tree)
        archive.write_bytes(archive.read_bytes()[:300])
        (tmp_path / "empty").mkdir()
        text = tmp_path / "text"
        text.write_text("not a tarball")
        for source in (archive, tmp_path / "empty", text, tmp_path / "nothing"):
            with pytest.raises(PwError) as caught:
                unpack(source, pin, tmp_path / "out")
            assert caught.value.code == "unreadable-source"
            assert str(source) in caught.value.message

    def test_that_was_downloaded_is_used_again(self, tree, pack, pin, tmp_path):
        kept = tmp_path / "sources" / "qe.tar.gz"
        kept.parent.mkdir()
        digest = hashlib.sha256(pack(tree).replace(kept).read_bytes()).hexdigest()
        steps: list[str] = []
        assert download_and_unpack(pin, tmp_path / "out", kept, steps.append) == digest
        assert steps == []

    def test_that_cannot_be_had_says_what_was_tried(self, pin, tmp_path, monkeypatch):
        monkeypatch.setenv("PATH", "")
        monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # the discard port: nothing listens
        kept = tmp_path / "sources" / "qe.tar.gz"
        kept.parent.mkdir()
        kept.write_text("damaged")
        with pytest.raises(PwError) as caught:
            download_and_unpack(pin, tmp_path / "out", kept, lambda step: None)
        assert caught.value.code == "source-unavailable"
        for said in (str(kept), "no apt-get", "cannot download https://"):
            assert said in caught.value.message
        assert "--source" in caught.value.remedy
        assert [path.name for path in kept.parent.iterdir()] == ["qe.tar.gz"]


def test_source_lists_of_the_distribution_only(tmp_path):
    write_files(
        tmp_path,
        {
            "sources.list": "# deb http://old.example trixie main\n"
            "deb [arch=amd64 signed-by=/k.gpg] http://deb.example/debian bookworm main contrib # here\n"
            "deb-src http://deb.example/debian bookworm-updates main\n"
            "deb cdrom:[Debian 12]/ bookworm main\n",
            "sources.list.d/other.list": "deb https://other.example/apt cloud-bookworm main\n"
            "deb https://docker.example/debian bookworm stable\n",
            "sources.list.d/debian.sources": "Types: deb\n# a comment\nURIs: http://deb.example/debian\n"
            "Suites: bookworm bookworm-security\nComponents: main\nSigned-By: /k.gpg\n\n"
            "Types: deb\nURIs: http://off.example\nSuites: bookworm\nComponents: main\nEnabled: no\n",
            "sources.list.d/other.sources": "Types: deb\nURIs: http://b.example\nSuites: nodistro\nComponents: main\n",
        },
    )
    assert source_lists(tmp_path, "bookworm") == {
        "distribution.list": "deb-src [arch=amd64 signed-by=/k.gpg] http://deb.example/debian bookworm main contrib\n"
        "deb-src http://deb.example/debian bookworm-updates main\n",
        "distribution.sources": "Types: deb-src\nURIs: http://deb.example/debian\nSuites: bookworm bookworm-security\n"
        "Components: main\nSigned-By: /k.gpg\n\n",
    }


class TestTools:
    def test_all_that_are_missing_are_named_at_once(self, monkeypatch):
        monkeypatch.setenv("PATH", "")
        with pytest.raises(PwError) as caught:
            check_tools(mpi=True)
        assert (caught.value.code, caught.value.stage) == ("missing-tools", "set-up")
        for name in ("gfortran", "gcc", "make", "patch", "mpif90", "fftw3", "openblas"):
            assert name in caught.value.message
        assert (
            "apt-get install gfortran gcc make patch binutils libopenmpi-dev openmpi-bin libfftw3-dev libopenblas-dev."
            in caught.value.remedy
        )

    def test_libraries_that_do_not_link_are_missing(self, tmp_path, monkeypatch):
        programs = ("gfortran", "gcc", "make", "patch", "strip")
        write_files(tmp_path / "bin", dict.fromkeys(programs, '#!/bin/sh\ncase "$*" in *-lopenblas*) exit 1;; esac\n'))
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
        with pytest.raises(PwError, match="not found: libopenblas with its development files "):
            check_tools()

    @needs_tools
    def test_nothing_is_missing_where_it_all_is(self):
        check_tools()


class TestKey:
    def test_changes_with_whatever_changes_the_executable(self, patches):
        def key(mpi: bool = False) -> str:
            return Recipe(patches, mpi).key

        keys = [key(), key(mpi=True)]
        for name, text in {
            "0001-hook.patch": HOOK + "\n",
            "announce.f90": ANNOUNCE.lower(),
            "another.f90": "END\n",
            "source.json": json.dumps({"version": "6.7", "files": {}}),
        }.items():
            write_files(patches, {name: text})
            keys.append(key())
        assert len(set(keys)) == len(keys)

    def test_does_not_change_with_a_readme(self, patches):
        before = Recipe(patches, mpi=False).key
        write_files(patches, {"README.md": "words"})
        assert Recipe(patches, mpi=False).key == before

    def test_needs_a_patch_folder(self, tmp_path):
        with pytest.raises(PwError, match=r"source\.json") as caught:
            build(patches=tmp_path)
        assert caught.value.code == "unreadable-patches"


def test_patches_of_the_package_are_of_pinned_files():
    folder = patch_folder()
    pinned = Pin.read(folder / "source.json").files
    recipe = Recipe(folder, mpi=False)
    assert recipe.patch_files
    assert recipe.new_files
    for patch in recipe.patch_files:
        targets = [
            line.split()[1].removeprefix("b/") for line in patch.read_text().splitlines() if line.startswith("+++ ")
        ]
        assert targets
        assert set(targets) <= set(pinned)
    assert not {f"PW/src/{file.name}" for file in recipe.new_files} & set(pinned)
    calculations = json.loads((folder / "golden.json").read_text())["calculations"]
    assert {calculation["pseudopotential"] for calculation in calculations} <= set(pinned)


@needs_tools
class TestBuild:
    def test_makes_an_executable_once(self, tree, patches, cache, monkeypatch):
        steps: list[str] = []
        executable = build(tree, patches=patches, report=steps.append)
        assert BANNER in subprocess.run([executable], capture_output=True, text=True, cwd=cache, check=True).stdout
        assert executable.relative_to(cache).parts[0] == "pw"
        about = json.loads((executable.parents[1] / "build.json").read_text())
        assert about["golden_deviation_hartree"] == 0
        assert about["patches_sha256"]["announce.f90"] == hashlib.sha256(ANNOUNCE.encode()).hexdigest()
        assert "GNU Fortran" in about["compiler"]
        assert "gfortran -c announce.f90" in (executable.parents[1] / "build.log").read_text()
        assert [step.split()[0].rstrip(":,") for step in steps] == ["source", "patch", "configure", "compile", "golden"]
        left = sorted(path.name for path in executable.parents[2].iterdir())
        assert left == [executable.parents[1].name, f"{executable.parents[1].name}.lock"]

        monkeypatch.setenv("PATH", "")  # nothing is needed any more, not even a source
        steps.clear()
        assert build(patches=patches, report=steps.append) == executable
        assert steps == []

    def test_again_where_forced(self, tree, patches, monkeypatch, tmp_path):
        monkeypatch.setenv("TEST_COUNT", str(tmp_path / "count"))
        first = build(tree, patches=patches)
        identity = first.stat().st_ino
        assert build(tree, patches=patches, force=True) == first
        assert first.stat().st_ino != identity
        assert (tmp_path / "count").read_text().split() == ["built"] * 2

    def test_twice_at_once_is_done_once(self, tree, patches, monkeypatch, tmp_path):
        monkeypatch.setenv("TEST_COUNT", str(tmp_path / "count"))
        monkeypatch.setenv("TEST_PAUSE", "1")
        steps: list[str] = []
        with ThreadPoolExecutor() as pool:
            calls = [pool.submit(build, tree, patches=patches, report=steps.append) for _ in range(2)]
            assert calls[0].result() == calls[1].result()
        assert (tmp_path / "count").read_text().split() == ["built"]
        assert steps.count("wait for another process that builds the same") == 1

    def test_takes_nothing_from_an_outer_make(self, tree, patches, monkeypatch):
        monkeypatch.setenv("MAKEFLAGS", "n")  # under which make would only print
        monkeypatch.setenv("FFLAGS", "-no-such-flag")
        assert build(tree, patches=patches).is_file()

    def test_ends_with_its_processes_when_interrupted(self, tree, patches, cache, monkeypatch, tmp_path):
        monkeypatch.setenv("TEST_PAUSE", "60")
        monkeypatch.setenv("TEST_COUNT", str(tmp_path / "count"))
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        script = (
            "import pathlib, signal, sys\nfrom sorep.single_shot.build import build\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "build(sys.argv[1], patches=pathlib.Path(sys.argv[2]))"
        )
        process = subprocess.Popen([sys.executable, "-c", script, tree, patches], stderr=subprocess.DEVNULL)
        wait_until((tmp_path / "count").exists)
        assert started_with(cache) >= {process.pid}
        process.send_signal(signal.SIGINT)
        assert process.wait(30) != 0
        wait_until(lambda: not started_with(cache))
        assert not list(tmp_path.glob("sorep-pw-*"))
        assert not list(cache.glob("pw/*/bin/pw.x"))

    @pytest.mark.parametrize("jobs", [0, -1])
    def test_needs_a_job(self, jobs, patches):
        with pytest.raises(UsageError, match=str(jobs)):
            build(patches=patches, jobs=jobs)


@needs_tools
class TestRefusal:
    @pytest.fixture
    def refused(self, tree, patches) -> Callable[[], PwError]:
        """The error of a build, after which nothing may be installed."""

        def refused() -> PwError:
            with pytest.raises(PwError) as caught:
                build(tree, patches=patches)
            assert caught.value.stage == "set-up"
            assert caught.value.remedy
            assert not Recipe(patches, mpi=False).executable.exists()
            return caught.value

        return refused

    @pytest.fixture
    def change_source(self, tree, patches, pin) -> Callable[[str, str], None]:
        """Change a file of the source and its pin."""

        def change_source(name: str, text: str) -> None:
            write_files(tree, {name: text})
            files = {**pin.files, name: hashlib.sha256(text.encode()).hexdigest()}
            write_files(patches, {"source.json": json.dumps({"version": pin.version, "files": files})})

        return change_source

    @pytest.mark.parametrize("file", ["PW/src/pw.f90", "PW/src/gone.f90"])
    def test_names_the_patch_and_the_file_it_does_not_fit(self, file, refused, patches):
        hook = HOOK.replace("PW/src/pw.f90", file).replace("Program PWSCF", "Program OTHER")
        write_files(patches, {"0002-second.patch": hook})
        error = refused()
        assert error.code == "patch-failed"
        assert error.message.startswith(f"patch 0002-second.patch does not apply to {file}: ")

    def test_of_a_patch_that_is_cut_short(self, refused, patches):
        write_files(patches, {"0001-hook.patch": "\n".join(HOOK.splitlines()[:5])})
        error = refused()
        assert error.code == "patch-failed"
        assert "0001-hook.patch" in error.message

    def test_of_slow_libraries(self, refused, monkeypatch):
        monkeypatch.setenv("TEST_NO_BLAS", "1")
        error = refused()
        assert error.code == "library-not-used"
        assert "OpenBLAS (BLAS_LIBS = )" in error.message

    def test_of_what_does_not_compile_shows_the_error_and_keeps_the_log(self, refused, patches, cache):
        write_files(patches, {"announce.f90": "SUBROUTINE announce\n  PRIMT *\nEND SUBROUTINE announce\n"})
        error = refused()
        assert error.code == "compilation-failed"
        assert "PRIMT" in error.message
        (log,) = cache.glob("pw/*.log")
        assert str(log) in error.remedy
        assert "PRIMT" in log.read_text()

    def test_of_a_configure_that_fails_with_status_zero(self, refused, change_source):
        change_source("configure", "#!/bin/sh\necho no luck\nexit 0\n")
        error = refused()
        assert error.code == "configure-failed"
        assert "no luck" in error.message

    def test_of_a_serial_code_where_mpi_is_asked_for(self, tree, patches, tmp_path, monkeypatch):
        write_files(tmp_path / "bin", {"mpif90": '#!/bin/sh\nexec gfortran "$@"\n'})
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
        with pytest.raises(PwError, match=r"MPI \(DFLAGS = -D__FFTW3\)") as caught:
            build(tree, patches=patches, mpi=True)
        assert caught.value.code == "library-not-used"

    @pytest.mark.parametrize(
        ("old", "new", "reason"),
        [
            ("END PROGRAM", "STOP 2\nEND PROGRAM", "ended with status 2"),
            (f" {LEVEL} ", f" {LEVEL + 2e-8} ", "off by 2.0e-08 Hartree (allowed: 1e-08)"),
            (f" {LEVEL} ", " NaN ", "off by inf"),
            (f" {LEVEL} ", f" {LEVEL} {LEVEL} ", "number of eigenvalues"),
            ("</espresso>", "", "no eigenvalues"),
        ],
    )
    def test_of_a_wrong_golden_calculation(self, old, new, reason, refused, change_source):
        change_source("PW/src/pw.f90", TREE["PW/src/pw.f90"].replace(old, new))
        error = refused()
        assert error.code == "golden-failed"
        assert reason in error.message

    def test_of_a_pw_x_that_does_not_announce_itself(self, refused, patches):
        write_files(patches, {"announce.f90": ANNOUNCE.replace("revision 1", "revision 0")})
        error = refused()
        assert error.code == "golden-failed"
        assert f'does not print "{BANNER}"' in error.message

    def test_of_a_cache_that_cannot_be_written(self, refused, cache):
        cache.write_text("a file where a folder should be")
        error = refused()
        assert error.code == "cannot-write"
        assert "SOREP_CACHE" in error.remedy
