"""The page in examples/web, in a real browser: its pixels are ONNX Runtime's, and it says what goes wrong."""

from __future__ import annotations

import base64
import io
import json
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from engine import open_network
from helpers.chromium import WEBGPU_IN_SOFTWARE, Browser, browser, needs_chromium
from numpy.typing import NDArray
from PIL import Image

from memsr_compiler import export_onnx
from memsr_compiler.images.files import sample_photographs, to_image
from memsr_compiler.plain.info import PlainInfo
from memsr_compiler.plain.network import PlainLayer, PlainNet
from memsr_compiler.plain.read import read_plain_file

EXAMPLE = Path(__file__).parents[2] / "examples" / "web"
pytestmark = [
    needs_chromium,
    pytest.mark.skipif(not (EXAMPLE / "runtime").is_dir(), reason="needs examples/web/runtime: make web"),
]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The page and its files, served from a folder that tests may add to."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(EXAMPLE / "index.html", folder)
    (folder / "runtime").symlink_to(EXAMPLE / "runtime")
    shutil.copy(EXAMPLE / "student.onnx", folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", folder
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def visit(tab: Browser, address: str, width: int = 1400, *, dark: bool = False) -> None:
    """Open the page and wait until it has a network or says why it has none."""
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    tab.send("Emulation.setEmulatedMedia", features=scheme)
    tab.send("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    tab.send("Page.navigate", url="about:blank")
    tab.errors.clear()
    tab.send("Page.navigate", url=address)
    tab.wait("document.readyState == 'complete' && document.getElementById('says') != null")
    tab.wait("document.getElementById('says').textContent != 'Loading the network.' || " + COMPLAINS, 60)


COMPLAINS = "!document.getElementById('wrong').hidden"


def choose(tab: Browser, path: Path, control: str = "photo") -> None:
    """As a person does with the file dialog."""
    tab.run("delete document.getElementById('result').dataset.done; document.getElementById('wrong').hidden = true")
    root = tab.send("DOM.getDocument")["root"]["nodeId"]
    node = tab.send("DOM.querySelector", nodeId=root, selector=f"#{control}")["nodeId"]
    tab.send("DOM.setFileInputFiles", nodeId=node, files=[str(path)])


def drop(tab: Browser, name: str) -> None:
    """Let go of a file over the page; it comes from the same server."""
    tab.run(f"""
      delete document.getElementById('result').dataset.done;
      document.getElementById('wrong').hidden = true;
      fetch('{name}').then(a => a.blob()).then(b => {{
        const held = new DataTransfer();
        held.items.add(new File([b], '{name}'));
        document.body.dispatchEvent(new DragEvent('drop', {{ dataTransfer: held, bubbles: true, cancelable: true }}));
      }})
    """)


def wait_for_result(tab: Browser) -> NDArray[np.uint8]:
    tab.wait(f"document.getElementById('result').dataset.done == 'yes' || {COMPLAINS}", 120)
    assert text(tab, "wrong") == ""
    data = tab.run("document.getElementById('after').toDataURL()").partition(",")[2]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def wait_for_complaint(tab: Browser) -> str:
    tab.wait(COMPLAINS, 60)
    return text(tab, "wrong")


def text(tab: Browser, name: str) -> str:
    shown: str = tab.run(f"(e => e.hidden ? '' : e.textContent)(document.getElementById('{name}'))")
    return shown


def list_errors(tab: Browser) -> list[str]:
    """What the console holds, but that a machine without a graphics processor has none."""
    return [error for error in tab.errors if "No available adapters" not in error]


def save_photograph(path: Path, height: int, width: int) -> NDArray[np.uint8]:
    photograph = sample_photographs()[0][:height, :width]
    Image.fromarray(photograph).save(path)
    return photograph


def enlarge(network: Path, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What ONNX Runtime makes of an image."""
    top = read_plain_file(network, require_certificate=False).manifest.info.input_range[1]
    values = np.ascontiguousarray(image.transpose(2, 0, 1)[None], dtype=np.float32) * np.float32(top / 255)
    return to_image(torch.from_numpy(open_network("onnxruntime", network)(values) / top))


def compare(page: NDArray[np.uint8], expected: NDArray[np.uint8]) -> None:
    """One level of 255 where a value between two is rounded either way, and hardly anywhere."""
    assert page.shape == expected.shape
    difference = np.abs(page.astype(int) - expected.astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.002


def test_the_page_gives_onnx_runtimes_pixels_and_tiles_leave_no_seams(
    site: tuple[str, Path], tab: Browser, tmp_path: Path
) -> None:
    address, folder = site
    visit(tab, address)
    assert "enlarges 2 times" in text(tab, "says")
    for height, width in ((200, 210), (1, 3)):  # four tiles; smaller than a kernel
        photograph = save_photograph(tmp_path / "small.png", height, width)
        choose(tab, tmp_path / "small.png")
        compare(wait_for_result(tab), enlarge(folder / "student.onnx", photograph))
    assert "became 6 x 2" in text(tab, "says")
    assert not list_errors(tab)


def test_webgpu_gives_the_same_pixels(site: tuple[str, Path], tmp_path: Path) -> None:
    address, folder = site
    photograph = save_photograph(tmp_path / "small.png", 30, 40)
    with browser(tmp_path / "profile", WEBGPU_IN_SOFTWARE) as opened:
        visit(opened, address)
        if "WebGPU" not in text(opened, "says"):
            pytest.skip("this Chromium has no WebGPU in software")
        choose(opened, tmp_path / "small.png")
        compare(wait_for_result(opened), enlarge(folder / "student.onnx", photograph))
        assert not list_errors(opened)


def test_a_photograph_and_another_network_can_be_dropped(site: tuple[str, Path], tab: Browser) -> None:
    """One in values from 0 to 255, that enlarges three times and repeats the image outside."""
    address, folder = site
    export_onnx(repeating_network(), folder / "other.onnx")
    photograph = save_photograph(folder / "photo.png", 40, 50)
    visit(tab, address)
    drop(tab, "other.onnx")
    tab.wait("document.getElementById('says').textContent.startsWith('other.onnx: enlarges 3 times')", 60)
    drop(tab, "photo.png")
    compare(wait_for_result(tab), enlarge(folder / "other.onnx", photograph))
    assert tab.run("document.getElementById('save').download") == "photo-x3.png"
    assert not list_errors(tab)


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_sticks_out_and_the_picture_is_there(
    width: int, dark: bool, site: tuple[str, Path], tab: Browser, tmp_path: Path
) -> None:
    address, _ = site
    save_photograph(tmp_path / "a photograph with a name that is long, much too long for a line.png", 64, 80)
    visit(tab, address, width, dark=dark)
    choose(tab, next(tmp_path.iterdir()))
    wait_for_result(tab)
    for state in ("'fit'", "document.getElementById('real').click()"):
        tab.run(state)
        assert tab.run("document.documentElement.scrollWidth - innerWidth") <= 0
    shown = np.asarray(tab.picture(whole=True).convert("L"))
    assert (np.median(shown) < 60) == dark


def test_the_slider_moves_by_keys_and_shows_before_and_after(
    site: tuple[str, Path], tab: Browser, tmp_path: Path
) -> None:
    address, _ = site
    save_photograph(tmp_path / "photo.png", 64, 80)
    visit(tab, address)
    choose(tab, tmp_path / "photo.png")
    wait_for_result(tab)
    tab.run("document.getElementById('slider').focus(); document.getElementById('view').scrollIntoView()")
    box = json.loads(tab.run("JSON.stringify(document.getElementById('stage').getBoundingClientRect())"))
    left, right = int(box["left"]) + 30, int(box["right"]) - 30
    rows = slice(max(0, int(box["top"])) + 5, 600)

    def shown() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        pixels = np.asarray(tab.picture())[rows]
        return pixels[:, left : left + 300], pixels[:, right - 300 : right]

    middle = shown()
    tab.press("Home", 36)
    tab.wait("document.getElementById('slider').value == 0")
    after = shown()
    tab.press("End", 35)
    tab.wait("document.getElementById('slider').value == 100")
    before = shown()
    assert np.array_equal(middle[0], before[0]) and not np.array_equal(middle[0], after[0])
    assert np.array_equal(middle[1], after[1]) and not np.array_equal(middle[1], before[1])


def test_every_control_is_reached_by_the_tabulator(site: tuple[str, Path], tab: Browser, tmp_path: Path) -> None:
    address, _ = site
    save_photograph(tmp_path / "photo.png", 20, 20)
    visit(tab, address)
    choose(tab, tmp_path / "photo.png")
    wait_for_result(tab)
    tab.run("document.activeElement.blur()")
    reached = []
    for _ in range(6):
        tab.press("Tab", 9)
        reached.append(tab.run("document.activeElement.id"))
    assert reached == ["photo", "network", "view", "slider", "save", "real"]


def test_it_says_what_is_wrong_with_a_file(site: tuple[str, Path], tab: Browser, tmp_path: Path) -> None:
    address, folder = site
    net = repeating_network()
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "broken.onnx").write_bytes((folder / "student.onnx").read_bytes()[:5000])
    export_onnx(net, tmp_path / "half.onnx", dtype="float16")
    foreign = onnx.load(str(folder / "student.onnx"))
    del foreign.metadata_props[:]
    onnx.save(foreign, str(tmp_path / "foreign.onnx"))
    foreign.metadata_props.add(key="memsr_quantized", value="memsr quantized network 2")
    onnx.save(foreign, str(tmp_path / "integers.onnx"))
    Image.new("RGB", (9000, 10)).save(tmp_path / "wide.png")
    visit(tab, address)
    for name, words in {
        "notes.txt": "notes.txt is no picture that this browser reads",
        "broken.onnx": "broken.onnx is no ONNX file, or a damaged one",
        "half.onnx": "half.onnx is in float16",
        "foreign.onnx": "foreign.onnx is no plain network of memsrc",
        "integers.onnx": "integers.onnx is in 8 bits",
        "wide.png": "wide.png has 9,000 x 10 pixels",
    }.items():
        choose(tab, tmp_path / name, "photo" if name[-4:] != "onnx" else "network")
        assert words in wait_for_complaint(tab)
    save_photograph(tmp_path / "photo.png", 20, 20)
    choose(tab, tmp_path / "photo.png")  # and all of that is forgotten
    wait_for_result(tab)


def test_work_can_be_stopped_and_nothing_else_begins_meanwhile(
    site: tuple[str, Path], tab: Browser, tmp_path: Path
) -> None:
    address, _ = site
    Image.new("RGB", (1200, 1200), "grey").save(tmp_path / "large.png")
    save_photograph(tmp_path / "photo.png", 20, 20)
    visit(tab, address)
    choose(tab, tmp_path / "large.png")
    tab.wait("document.getElementById('done').value > 0", 60)
    choose(tab, tmp_path / "photo.png")
    assert "One photograph at a time" in wait_for_complaint(tab)
    tab.run("document.getElementById('stop').click()")
    tab.wait("document.getElementById('wrong').textContent == 'Stopped.'", 60)
    choose(tab, tmp_path / "photo.png")
    assert wait_for_result(tab).shape == (40, 40, 3)


def test_it_says_what_is_missing_beside_it(site: tuple[str, Path], tab: Browser, tmp_path: Path) -> None:
    address, folder = site
    (folder / "bare").mkdir()
    shutil.copy(EXAMPLE / "index.html", folder / "bare")
    visit(tab, address + "bare/")
    assert "ort.wasm.min.mjs is not beside this page. Fetch it with: make web" in text(tab, "wrong")
    (folder / "bare" / "runtime").symlink_to(EXAMPLE / "runtime")
    visit(tab, address + "bare/")
    assert "Drop an .onnx file of memsrc" in text(tab, "wrong")
    visit(tab, (EXAMPLE / "index.html").as_uri())
    assert "python -m http.server" in text(tab, "wrong")


def test_it_says_that_a_browser_has_no_webassembly(site: tuple[str, Path], tab: Browser) -> None:
    address, _ = site
    script = tab.send("Page.addScriptToEvaluateOnNewDocument", source="delete globalThis.WebAssembly")["identifier"]
    try:
        visit(tab, address)
        assert "no WebAssembly" in text(tab, "wrong")
    finally:
        tab.send("Page.removeScriptToEvaluateOnNewDocument", identifier=script)


def repeating_network() -> PlainNet:
    """A network that enlarges three times in values from 0 to 255: it adds something small to the repeated image."""
    torch.manual_seed(0)
    layers = [
        PlainLayer(torch.randn(8, 3, 3, 3) / 9, torch.randn(8), relu=True),
        PlainLayer(torch.randn(27, 8, 3, 3) / 30, torch.randn(27), relu=False, shuffle=3),
    ]
    return PlainNet(layers, PlainInfo(3, 3, (0.0, 255.0), "none", "", "", 2, "nearest", "memsr_compiler test")).eval()
