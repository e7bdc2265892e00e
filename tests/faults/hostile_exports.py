"""Learners as an attacker would describe them, opcode by opcode; a part may be remembered once and used everywhere."""

import struct

HEAD = (
    *("pooling.AdaptiveAvgPool2d", "flatten.Flatten", "batchnorm.BatchNorm1d", "dropout.Dropout", "linear.Linear"),
    *("activation.ReLU", "batchnorm.BatchNorm1d", "dropout.Dropout", "linear.Linear"),
)


def text(value):
    content = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(content)) + content


def number(value):
    content = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(content)]) + content


def row(*parts):
    return b"(" + b"".join(parts) + b"t"


def items(*parts):
    return b"(" + b"".join(parts) + b"l"


def entries(pairs):
    return b"}(" + b"".join(text(key) + value for key, value in pairs) + b"u"


def name(dotted):
    module, _, last = dotted.rpartition(".")
    return b"c" + module.encode() + b"\n" + last.encode() + b"\n"


def call(dotted, *args):
    return name(dotted) + row(*args) + b"R"


def thing(dotted, **state):
    return name(dotted) + b")\x81" + entries(state.items()) + b"b"


def remember(place, value):
    """Describe `value` and put it away; `recall` brings it back in five bytes."""
    return value + b"r" + struct.pack("<I", place) + b"0"


def recall(place):
    return b"j" + struct.pack("<I", place)


def tensor(shape, strides, *, count=4):
    """A tensor of float32 in the storage data/0; `shape` and `strides` are numbers, or described already."""
    storage = row(text("storage"), name("torch.FloatStorage"), text("0"), text("cpu"), number(count)) + b"Q"
    told = [each if isinstance(each, bytes) else row(*map(number, each)) for each in (shape, strides)]
    return call("torch._utils._rebuild_tensor_v2", storage, number(0), *told, b"\x89")


def layer(kind, *, children=(), parameters=(), **state):
    return thing(kind, _parameters=entries(parameters), _buffers=b"}", _modules=entries(children), **state)


def pipeline(*transforms):
    return thing("fasttransform.pipeline.Pipeline", fs=items(*transforms))


def loaders(*, after_item=(), after_batch=(), types=b"]"):
    dataset = thing("fastai.data.core.Datasets", tls=types)
    steps = {"after_item": pipeline(*after_item), "after_batch": pipeline(*after_batch), "dataset": dataset}
    return thing("fastai.data.core.DataLoaders", loaders=items(thing("fastai.data.core.TfmdDL", **steps)))


def learner(model, *, first=b"", **state):
    """A whole pickle; `first` is what is remembered before."""
    return b"\x80\x02" + first + thing("fastai.learner.Learner", model=model, **state) + b"."


def network(parameters=(), *, head=None, **state):
    """A body of one layer of torchvision with these parameters, and fastai's head with those of `head`, by kind."""
    kinds = [(kind, (head or {}).get(kind, ())) for kind in HEAD]
    layers = [
        (str(place), layer(f"torch.nn.modules.{kind}", parameters=own)) for place, (kind, own) in enumerate(kinds)
    ]
    body = layer("torchvision.models.resnet.X", parameters=parameters, **state)
    parts = [("0", body), ("1", layer("torch.nn.modules.container.Sequential", children=layers))]
    return layer("torch.nn.modules.container.Sequential", children=parts)


def normalise(mean, std=None):
    return loaders(after_batch=[thing("fastai.data.transforms.Normalize", mean=mean, std=std or mean)])
