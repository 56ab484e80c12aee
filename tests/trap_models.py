"""Model folders, data sets and configs that try to run code, and a process that uses each of them under an audit hook.

Every payload, were it to run, would make a file in the folder of canaries. `python [-O] trap_models.py ROOT` builds
the traps in ROOT, uses each as a user would, and writes ROOT/report.json: exit codes, messages, what was caught.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TRAPS: dict[str, Trap] = {}


@dataclass(frozen=True)
class Trap:
    """build: turns a copy of a good model folder into a trap. use: what the user does with it. code: as it must end."""

    build: Callable[[Path, Path], object]
    use: str
    code: int


def trap(name: str, code: int, *, use: str = "train") -> Callable[[Callable[[Path, Path], object]], object]:
    def register(build: Callable[[Path, Path], object]) -> object:
        TRAPS[name] = Trap(build, use, code)
        return build

    return register


class Payload:
    """What unpickling would run."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.canary),))


def pickled(canary: Path, *, whole: bool = False) -> bytes:
    """A checkpoint as torch writes it, a zip file around a pickle; `whole`: the bare pickle of old ones."""
    bare = pickle.dumps(Payload(canary), protocol=2)
    if whole:
        return bare
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", bare)
        archive.writestr("archive/version", "3")
    return buffer.getvalue()


def code(canary: Path) -> str:
    """A Python file that shows that it was imported."""
    classes = "\n".join(f"class {name}:\n    pass" for name in ("EvilConfig", "EvilModel", "EvilTokenizer"))
    return f"import os\nos.mkdir({str(canary)!r})\n{classes}\n"


def edit(path: Path, **changes: Any) -> None:
    document = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**document, **changes}))


def config(**changes: Any) -> Callable[[Path, Path], object]:
    return lambda folder, canary: edit(folder / "config.json", **changes)


def with_code(folder: Path, canary: Path) -> None:
    for name in ("evil", "modeling_textclf", "openelm", "configuration_evil", "tokenization_evil", "handler"):
        (folder / f"{name}.py").write_text(code(canary))
    for name in ("__init__.py", "setup.py", "conftest.py", "sitecustomize.py", "model.py"):
        (folder / name).write_text(code(canary))


AUTO_MAP = {"AutoConfig": "evil.EvilConfig", "AutoModel": "evil.EvilModel"} | {
    "AutoModelForSequenceClassification": "evil.EvilModel"
}
KERNEL = "evil-owner/evil-kernel"


# Pickles ------------------------------------------------------------------------------------------------------------


def only_bin(folder: Path, data: bytes) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(data)


def index(folder: Path, shard: str, *, name: str = "model.safetensors.index.json") -> None:
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", framework="np") as file:
        keys = list(file.keys())
    (folder / "model.safetensors").unlink()
    (folder / name).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(keys, shard)}))


trap("weights only as a pickle", 8)(lambda folder, canary: only_bin(folder, pickled(canary)))
trap("a pickle, and leave to open it", 4, use="train, bin")(lambda folder, canary: only_bin(folder, pickled(canary)))
trap("an old pickle, and leave to open it", 4, use="train, bin")(
    lambda folder, canary: only_bin(folder, pickled(canary, whole=True))
)


@trap("pickles in parts", 8)
def _(folder: Path, canary: Path) -> None:
    index(folder, "pytorch_model-00001-of-00001.bin", name="pytorch_model.bin.index.json")
    (folder / "pytorch_model-00001-of-00001.bin").write_bytes(pickled(canary))


@trap("pickles in parts, and leave to open them", 4, use="train, bin")
def _(folder: Path, canary: Path) -> None:
    index(folder, "pytorch_model-00001-of-00001.bin", name="pytorch_model.bin.index.json")
    (folder / "pytorch_model-00001-of-00001.bin").write_bytes(pickled(canary))


@trap("a pickle named safetensors", 4)
def _(folder: Path, canary: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickled(canary, whole=True))


@trap("a torch file named safetensors", 4, use="answer")
def _(folder: Path, canary: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickled(canary))


@trap("an index of safetensors that names a pickle", 8)
def _(folder: Path, canary: Path) -> None:
    index(folder, "weights.bin")
    (folder / "weights.bin").write_bytes(pickled(canary))


@trap("the same, predicted with", 8, use="answer")
def _(folder: Path, canary: Path) -> None:
    index(folder, "weights.bin")
    (folder / "weights.bin").write_bytes(pickled(canary))


@trap("the config names other weights", 8)
def _(folder: Path, canary: Path) -> None:
    edit(folder / "config.json", transformers_weights="adapter_model.bin")
    (folder / "adapter_model.bin").write_bytes(pickled(canary))


@trap("the config names weights elsewhere", 8, use="answer")
def _(folder: Path, canary: Path) -> None:
    edit(folder / "config.json", transformers_weights="../elsewhere/model.safetensors")


@trap("an adapter in a pickle beside the weights", 8)
def _(folder: Path, canary: Path) -> None:
    adapter = {"peft_type": "LORA", "r": 2, "target_modules": ["query"], "megatron_core": "evil", "megatron_config": {}}
    edit(folder / "adapter_config.json", base_model_name_or_path="evil-owner/evil", **adapter)
    (folder / "adapter_model.bin").write_bytes(pickled(canary))
    with_code(folder, canary)


@trap("a distributed checkpoint with pickled metadata", 8)
def _(folder: Path, canary: Path) -> None:
    (folder / "model.safetensors").rename(folder / "shard-00000-model-00001-of-00001.safetensors")
    (folder / "model.safetensors").write_bytes(b"")
    (folder / ".metadata").write_bytes(pickled(canary, whole=True))


@trap("pickles that training leaves behind", 0)
def _(folder: Path, canary: Path) -> None:
    for name in ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.pkl"):
        (folder / name).write_bytes(pickled(canary))
    for name in ("tokenizer.pkl", "vocab.pkl", "spiece.model.pkl"):
        (folder / name).write_bytes(pickled(canary, whole=True))


@trap("weights of other frameworks", 4)
def _(folder: Path, canary: Path) -> None:
    (folder / "model.safetensors").unlink()
    for name in ("tf_model.h5", "flax_model.msgpack", "model.ckpt.index", "model.joblib"):
        (folder / name).write_bytes(pickled(canary))


@trap("a pickle as a vocabulary", 4)
def _(folder: Path, canary: Path) -> None:
    (folder / "tokenizer.json").unlink()
    edit(folder / "tokenizer_config.json", tokenizer_class="TransfoXLTokenizer")
    (folder / "vocab.txt").write_bytes(pickled(canary, whole=True))
    (folder / "vocab.pkl").write_bytes(pickled(canary, whole=True))
    (folder / "spiece.model").write_bytes(pickled(canary, whole=True))


# Code of the folder ---------------------------------------------------------------------------------------------------


def add_code(**changes: Any) -> Callable[[Path, Path], object]:
    def build(folder: Path, canary: Path) -> None:
        with_code(folder, canary)
        edit(folder / "config.json", **changes)

    return build


trap("an unknown type that brings its code", 8)(add_code(model_type="evil", auto_map=AUTO_MAP))
trap("an unknown type, predicted with", 8, use="answer")(add_code(model_type="evil", auto_map=AUTO_MAP))
trap("a known type that brings code too", 0)(add_code(auto_map=AUTO_MAP))
trap("a known type with code, predicted with", 0, use="answer")(add_code(auto_map=AUTO_MAP))
trap("code of another repository", 0)(add_code(auto_map={"AutoConfig": "evil-owner/evil--evil.EvilConfig"}))
trap("an auto_map that is a list", 0)(add_code(auto_map=["evil.EvilConfig"]))
trap("an auto_map within", 8)(add_code(model_type="evil", text_config={"model_type": "evil", "auto_map": AUTO_MAP}))
trap("no type at all", 8)(add_code(model_type=None, auto_map=AUTO_MAP))
trap("our own type with its code changed", 8)(
    add_code(model_type="textclf", text_config={"model_type": "evil"}, auto_map=AUTO_MAP)
)
trap("OpenELM with its code changed", 4)(add_code(model_type="openelm", auto_map=AUTO_MAP))
trap("trust_remote_code in the config", 8)(add_code(trust_remote_code=True, auto_map=AUTO_MAP))
trap("trust_remote_code far within", 8)(add_code(x=[{"y": {"trust_remote_code": True}}]))
trap("custom pipelines", 8)(
    add_code(custom_pipelines={"text-classification": {"impl": "evil.EvilModel", "pt": ["AutoModel"]}})
)


@trap("a generation config and its code", 0)
def _(folder: Path, canary: Path) -> None:
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate/generate.py").write_text(code(canary))
    edit(folder / "generation_config.json", custom_generate="./custom_generate", trust_remote_code=True)


@trap("code beside a good model", 0)
def _(folder: Path, canary: Path) -> None:
    with_code(folder, canary)


@trap("code beside a good model, predicted with", 0, use="answer")
def _(folder: Path, canary: Path) -> None:
    with_code(folder, canary)


@trap("a tokenizer that brings its code", 0)
def _(folder: Path, canary: Path) -> None:
    with_code(folder, canary)
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.EvilTokenizer", "evil.EvilTokenizer"]})


@trap("a tokenizer of a class that only its code has", 8)
def _(folder: Path, canary: Path) -> None:
    with_code(folder, canary)
    auto_map = {"AutoTokenizer": ["evil.EvilTokenizer", None]}
    edit(folder / "tokenizer_config.json", auto_map=auto_map, tokenizer_class="Evil")


for _name in ("AutoModel", "AutoTokenizer", "AutoProcessor", "pipeline", "os", "../evil", "BertModel", "Trainer"):

    @trap(f"a tokenizer class called {_name}", 8)
    def _(folder: Path, canary: Path, name: str = _name) -> None:
        with_code(folder, canary)
        edit(folder / "config.json", auto_map=AUTO_MAP | {"AutoTokenizer": ["evil.EvilTokenizer", None]})
        edit(folder / "tokenizer_config.json", tokenizer_class=name)


@trap("a tokenizer class in the config", 8)
def _(folder: Path, canary: Path) -> None:
    with_code(folder, canary)
    (folder / "tokenizer_config.json").unlink()
    edit(folder / "config.json", tokenizer_class="AutoModel", auto_map=AUTO_MAP)


# Kernels and other repositories --------------------------------------------------------------------------------------

trap("a kernel of the Hub for attention", 8)(config(attn_implementation=KERNEL))
trap("a kernel, by the private name", 8)(config(_attn_implementation=KERNEL))
trap("a kernel, by the inner name", 8)(config(_attn_implementation_internal=f"paged|{KERNEL}@main:evil"))
trap("a kernel for a part of the model", 8)(config(attn_implementation={"text_config": KERNEL}))
trap("a kernel far within", 8)(config(text_config={"model_type": "bert", "_attn_implementation": KERNEL}))
trap("a kernel for experts", 8)(config(experts_implementation=KERNEL))
trap("kernels for layers", 8)(config(kernel_config={"kernel_mapping": {"RMSNorm": f"{KERNEL}:RMSNorm"}}))
trap("kernels switched on", 8)(config(use_kernels=True))
trap("flash attention that is not installed", 0)(config(_attn_implementation="flash_attention_2"))
trap("a kernel, predicted with", 8, use="answer")(config(_attn_implementation=KERNEL))
trap("a backbone of another repository", 8)(
    config(model_type="detr", backbone="evil-owner/evil", use_pretrained_backbone=True, use_timm_backbone=True)
)
trap("a backbone of timm", 8)(config(use_timm_backbone=True, backbone="hf-hub:evil-owner/evil"))
trap("quantised by a package that it names", 8)(config(quantization_config={"quant_method": "evil"}))
trap("quantised by a package that there is", 8)(config(quantization_config={"quant_method": "bitsandbytes"}))


# Paths ----------------------------------------------------------------------------------------------------------------


def elsewhere(folder: Path) -> Path:
    """A folder outside the model's, with good weights in it."""
    place = folder.parent / "elsewhere"
    place.mkdir(exist_ok=True)
    if not (place / "model.safetensors").exists():
        shutil.copy(folder / "model.safetensors", place / "model.safetensors")
    return place


def part(name: Callable[[Path], str]) -> Callable[[Path, Path], object]:
    def build(folder: Path, canary: Path) -> None:
        place = elsewhere(folder)
        index(folder, name(place))

    return build


trap("a part of the weights above the folder", 8)(part(lambda place: "../elsewhere/model.safetensors"))
trap("a part of the weights by its whole path", 8)(part(lambda place: str(place / "model.safetensors")))
trap("a part of the weights in a subfolder", 8)(part(lambda place: "sub/model.safetensors"))
trap("a part of the weights by Windows' path", 8)(part(lambda place: "..\\elsewhere\\model.safetensors"))
trap("a part of the weights with a NUL", 8)(part(lambda place: "model\0.safetensors"))
trap("a part that is a folder above", 8)(part(lambda place: ".."))
trap("a part that is no text", 4)(part(lambda place: 7))  # type: ignore[arg-type, return-value]


@trap("a part of the weights that is a link out", 8)
def _(folder: Path, canary: Path) -> None:
    place = elsewhere(folder)
    index(folder, "model-00001-of-00001.safetensors")
    (folder / "model-00001-of-00001.safetensors").symlink_to(place / "model.safetensors")


@trap("a chat template named as a path", 8)
def _(folder: Path, canary: Path) -> None:
    templates = [{"name": "default", "template": "x"}, {"name": f"../../{canary.name}", "template": "x"}]
    edit(folder / "tokenizer_config.json", chat_template=templates)


@trap("a chat template named by a whole path", 8)
def _(folder: Path, canary: Path) -> None:
    edit(folder / "tokenizer_config.json", chat_template=[{"name": str(canary), "template": "x"}])


@trap("chat templates that run code", 0)
def _(folder: Path, canary: Path) -> None:
    evil = "{{ cycler.__init__.__globals__.os.mkdir('" + str(canary) + "') }}{{ ''.__class__.__mro__ }}"
    (folder / "chat_template.jinja").write_text(evil)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates/tool.jinja").write_text(evil)
    edit(folder / "tokenizer_config.json", chat_template=evil)


@trap("a vocabulary elsewhere", 0)
def _(folder: Path, canary: Path) -> None:
    for key in ("vocab_file", "tokenizer_file", "merges_file", "special_tokens_map_file", "spm_file"):
        edit(folder / "tokenizer_config.json", **{key: str(folder.parent / "secret.txt")})
    (folder.parent / "secret.txt").write_text("a secret")


# Templates, graphs, runs ---------------------------------------------------------------------------------------------


@trap("a prompt with more than a place for the text", 0, use="answer")
def _(folder: Path, canary: Path) -> None:
    edit(folder / "textclf.json", prompt="{text} {0.__class__} {{ 7*7 }} {text.__init__.__globals__} %s ${HOME}")


@trap("labels that are templates", 0, use="card")
def _(folder: Path, canary: Path) -> None:
    names = ["{{ 7*7 }}", "<script>alert(1)</script>", "../../../etc/passwd"]
    edit(folder / "config.json", id2label={str(key): name for key, name in enumerate(names)})
    edit(folder / "config.json", label2id={name: key for key, name in enumerate(names)})
    edit(folder / "textclf.json", label_counts=dict.fromkeys(names, 3), dataset="../../../etc/{{ 7*7 }}")


def graph(folder: Path, kind: str, *, domain: str = "", location: str = "model.safetensors") -> None:
    """An ONNX graph that claims to belong to the weights."""
    from onnx import TensorProto, helper

    from textclf import atomic
    from textclf.artifact import graph as room

    ids = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in room.INPUTS[:2]]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])]
    weight = helper.make_tensor("w", TensorProto.FLOAT, [3], [0.0, 0.0, 0.0])
    del weight.float_data[:]
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "12")):
        weight.external_data.add(key=key, value=value)
    nodes = [helper.make_node("Evil" if domain else "Identity", ["w"], ["logits"], domain=domain)]
    sets = [helper.make_opsetid("", 18), *([helper.make_opsetid(domain, 1)] if domain else [])]
    model = helper.make_model(
        helper.make_graph(nodes, "evil", ids, outputs, initializer=[weight]), opset_imports=sets, ir_version=10
    )
    (folder / "onnx").mkdir()
    room.graph_path(folder, kind).write_bytes(model.SerializeToString())
    weights = folder / "model.safetensors"
    known = {"layout": room.layout(weights), "weights": atomic.sha256(weights)}
    (folder / "onnx/graph.json").write_text(json.dumps({"schema_version": 1, kind: known}))


for _kind in ("fp32", "int8"):

    @trap(f"an {_kind} graph that reads a file above", 4, use=f"answer, {_kind}")
    def _(folder: Path, canary: Path, kind: str = _kind) -> None:
        (folder.parent / "secret.bin").write_bytes(b"secret bytes")
        graph(folder, kind, location="../secret.bin")

    @trap(f"an {_kind} graph that reads a link out", 4, use=f"answer, {_kind}")
    def _(folder: Path, canary: Path, kind: str = _kind) -> None:
        (folder.parent / "secret.bin").write_bytes(b"secret bytes")
        (folder / "w.bin").symlink_to(folder.parent / "secret.bin")
        graph(folder, kind, location="w.bin")

    @trap(f"an {_kind} graph of operators that no one has", 4, use=f"answer, {_kind}")
    def _(folder: Path, canary: Path, kind: str = _kind) -> None:
        graph(folder, kind, domain="evil.ops")


@trap("a run folder that somebody made", 8, use="answer, run")
def _(folder: Path, canary: Path) -> None:
    edit(folder / "config.json", _attn_implementation=KERNEL)


@trap("a run folder with a pickle for weights", 8, use="answer, run")
def _(folder: Path, canary: Path) -> None:
    index(folder, "weights.bin")
    (folder / "weights.bin").write_bytes(pickled(canary))


@trap("a file of the artifact that is a link out", 8, use="push")
def _(folder: Path, canary: Path) -> None:
    (folder.parent / "id_rsa").write_text("a key")
    (folder / "vocab.txt").symlink_to(folder.parent / "id_rsa")


# Data and configs ----------------------------------------------------------------------------------------------------

CSV = "text,label\n" + "".join(f"words number {number},{'ab'[number % 2]}\n" for number in range(60))


@trap("a data set with a script", 0, use="data")
def _(folder: Path, canary: Path) -> None:
    with_code(folder, canary)
    (folder / f"{folder.name}.py").write_text(code(canary))
    (folder / "train.csv").write_text(CSV)
    (folder / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: ../../*\n---\n")


@trap("rows in a pickle", 3, use="data")
def _(folder: Path, canary: Path) -> None:
    for name in ("train.pkl", "test.pt", "train.joblib", "train.npy"):
        (folder / name).write_bytes(pickled(canary, whole=True))


@trap("a pickle named parquet", 3, use="data")
def _(folder: Path, canary: Path) -> None:
    (folder / "train.parquet").write_bytes(pickled(canary, whole=True))


@trap("a saved data set whose files are elsewhere", 3, use="data")
def _(folder: Path, canary: Path) -> None:
    (folder.parent / "secret.arrow").write_bytes(b"x")
    (folder / "state.json").write_text('{"_data_files": [{"filename": "../secret.arrow"}]}')
    (folder / "dataset_info.json").write_text("{}")


@trap("a saved data set whose splits are elsewhere", 3, use="data")
def _(folder: Path, canary: Path) -> None:
    (folder / "dataset_dict.json").write_text('{"splits": ["../train", "train/../../../etc"]}')


for _tag in ("object/apply:os.mkdir", "name:os.system", "module:evil", "object/new:os.mkdir"):

    @trap(f"YAML with !!python/{_tag}", 2, use="config")
    def _(folder: Path, canary: Path, tag: str = _tag) -> None:
        (folder / "run.yaml").write_text(f"data:\n  dataset: !!python/{tag} [{canary}]\n")


# The process that uses them -------------------------------------------------------------------------------------------


class Watch:
    """Events of the interpreter that no trap may cause."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.folder = ""
        self.caught: list[str] = []
        sys.addaudithook(self._on)

    def _on(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.folder:
            return
        if event in ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect"):
            self.caught.append(f"{event} {arguments!r:.200}")
        elif event in ("pickle.find_class", "socket.getaddrinfo", "ctypes.dlopen"):
            if not (event == "ctypes.dlopen" and "site-packages" in str(arguments[0])):
                self.caught.append(f"{event} {arguments!r:.200}")
        elif event == "exec" and str(getattr(arguments[0], "co_filename", "")).startswith(self.root):
            self.caught.append(f"exec {arguments[0].co_filename}")
        elif event == "open" and isinstance(arguments[0], (str, bytes)):
            path, flags = os.path.abspath(os.fsdecode(arguments[0])), arguments[2] or 0  # noqa: PTH100
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if "secret" in path or (writes and path.startswith(self.root) and not self._is_ours(path)):
                self.caught.append(f"open {path}")

    def _is_ours(self, path: str) -> bool:
        return path.startswith((f"{self.root}/home", f"{self.root}/saved", f"{self.root}/tmp"))


def use(how: str, folder: Path, saved: Path) -> None:
    """What a user would do with a trap. Raises TextclfError."""
    import textclf
    from textclf import presets
    from textclf.artifact import card, hub, runs
    from textclf.artifact import folder as names

    if how.startswith("train"):
        from textclf.labels import LabelSet
        from textclf.model.classifier import Classifier
        from textclf.model.tokenizer import load_tokenizer

        allow_bin = how == "train, bin"
        fetched = hub.fetch(str(folder), allow_bin=allow_bin, with_tokenizer=True)
        tokenizer = load_tokenizer(hub.fetch_tokenizer(str(folder)))
        labels = LabelSet(("x", "y"), "single")
        Classifier.from_pretrained(fetched.folder, labels, tokenizer, allow_bin=allow_bin).save(saved)
        tokenizer.save_pretrained(saved)
        extra = sorted(str(path.relative_to(saved)) for path in saved.rglob("*") if path.is_file())
        known = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
        # No assertions: this runs under -O too.
        if not set(extra) <= known:
            raise RuntimeError(f"saved with {extra}")
        for name in ("config.json", "tokenizer_config.json"):
            if "evil" in (saved / name).read_text():
                raise RuntimeError(f"what was evil is in the {name} that was saved")
    elif how == "answer, run":
        run = runs.create(saved.parent / "a-run", {})
        shutil.copytree(folder, run.folder / "model", symlinks=True)
        textclf.load(run.update(state="done"), runtime="torch")
    elif how.startswith("answer"):
        runtime = {"answer, fp32": "onnx", "answer, int8": "int8"}.get(how, "torch")
        textclf.load(str(folder), runtime=runtime, device="cpu").predict(["some words"])
    elif how == "card":
        text = card.render(names.read(folder), repo_id="a/b")
        if "<script>" in text:
            raise RuntimeError("labels of the card are read as more than text")
    elif how == "push":
        textclf.push(str(folder), "a/b", dry_run=True)
    elif how == "data":
        textclf.prepare(folder)
    elif how == "config":
        presets.read_config_file(folder / "run.yaml")


def main(root: Path) -> None:
    """Build all traps in `root`, use each, and tell."""
    sys.path.insert(0, str(Path(__file__).parent))
    import tiny_models
    from textclf.errors import TextclfError

    for name in ("home", "saved", "tmp", "traps"):
        (root / name).mkdir()
    good = tiny_models.artifact(root / "good")
    watch, told = Watch(root), []
    for number, (name, one) in enumerate(TRAPS.items()):
        canary = root / f"canary-{number}"
        place = root / "traps" / str(number)
        folder = place / "model"
        if one.use in ("data", "config"):
            folder.mkdir(parents=True)
        else:
            shutil.copytree(good, folder)
        one.build(folder, canary)
        # As where a user works in the folder that was sent to him.
        os.chdir(folder)
        answer = {"name": name, "code": 0, "message": "", "wanted": one.code}
        watch.folder, watch.caught = str(folder), []
        saved = root / "saved" / str(number) / "model"
        saved.mkdir(parents=True)
        try:
            use(one.use, folder, saved)
        except TextclfError as err:
            answer |= {"code": err.exit_code, "message": str(err)}
        except BaseException as err:  # noqa: BLE001  # torch and Rust raise such too
            answer |= {"code": 1, "message": f"{type(err).__name__}: {err}"}
        watch.folder = ""
        told.append({**answer, "caught": watch.caught, "fired": canary.exists()})
    left = sorted(path.name for path in root.glob("canary-*"))
    report = {"traps": told, "canaries": left, "optimised": not __debug__}
    (root / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
