import json
import logging
import platform
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime
import pytest
import torch
from onnx.external_data_helper import set_external_data
from onnx.numpy_helper import to_array
from sklearn.metrics import log_loss
from torch import nn
from toy_bundles import draw_smooth_images, make_toy_draft

import maskfast.bundle.int8
import maskfast.bundle.onnx
import maskfast.bundle.onnx_bytes
import maskfast.bundle.onnx_run
from maskfast.bundle.manifest import read_manifest
from maskfast.bundle.onnx_bytes import make_weights_unsigned, shift_wide_filters, walk_tensors
from maskfast.bundle.onnx_run import fit_weights, open_session, overflows
from maskfast.bundle.onnx_safety import check_onnx
from maskfast.bundle.store import write_bundle
from maskfast.core.errors import BundleError
from maskfast.core.image import load_square
from maskfast.score.loading import load


@pytest.fixture
def model(toy_bundle):
    return onnx.load(toy_bundle / "model.onnx")


def test_the_file_is_valid_and_one_file(model, toy_bundle):
    onnx.checker.check_model(model, full_check=True)
    check_onnx((toy_bundle / "model.onnx").read_bytes(), name="model.onnx")
    assert [each.name for each in model.graph.input] == ["images"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    assert not list(toy_bundle.glob("*.data"))


def test_the_files_say_nothing_of_the_machine_they_were_made_on(toy_bundle):
    place = str(Path(maskfast.bundle.onnx.__file__).parents[2]).encode()
    for name in ("model.onnx", "model.int8.onnx"):
        content = (toy_bundle / name).read_bytes()
        assert place not in content
        assert b"stack_trace" not in content


def test_external_data_is_refused_wherever_it_hides(model):
    inside_a_node = model.graph.node[0].attribute.add(type=4).t
    inside_a_node.raw_data = b"1234"
    for tensor in (model.graph.initializer[0], inside_a_node):
        set_external_data(tensor, "../../etc/passwd")
        with pytest.raises(BundleError, match=r"m\.onnx: tensor .* lies in another file"):
            check_onnx(model.SerializeToString(), name="m.onnx")
        tensor.ClearField("external_data")
        tensor.data_location = onnx.TensorProto.DEFAULT
    check_onnx(model.SerializeToString(), name="m.onnx")


def test_external_data_in_a_subgraph_is_refused(model):
    branch = model.graph.node.add(op_type="If").attribute.add(name="then_branch", type=5)
    set_external_data(branch.g.initializer.add(name="deep", raw_data=b"1234"), "elsewhere")
    with pytest.raises(BundleError, match="'deep' lies in another file"):
        check_onnx(model.SerializeToString(), name="m.onnx")


def test_a_number_that_is_not_finite_is_named(model):
    tensor = next(each for each in model.graph.initializer if len(each.raw_data) > 64)
    tensor.raw_data = b"\x00\x00\xc0\x7f" + tensor.raw_data[4:]
    with pytest.raises(BundleError, match=f"{tensor.name}.*not finite"):
        check_onnx(model.SerializeToString(), name="m.onnx")


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (onnx.TensorProto.FLOAT, {"float_data": [1, float("nan")]}),
        (onnx.TensorProto.FLOAT, {"float_data": [1, float("inf")]}),
        (onnx.TensorProto.DOUBLE, {"double_data": [1, float("nan")]}),
        (onnx.TensorProto.COMPLEX64, {"float_data": [1, float("nan")]}),
        (onnx.TensorProto.BFLOAT16, {"raw_data": b"\xc0\x7f\x80\x3f"}),
        (onnx.TensorProto.FLOAT16, {"raw_data": b"\x00\x7e\x00\x3c"}),
        (onnx.TensorProto.FLOAT, {"raw_data": b"\x00\x00\xc0\x7f"}),
    ],
    ids=["float", "infinity", "double", "complex", "bfloat16", "float16", "one alone"],
)
def test_a_number_that_is_not_finite_is_found_however_it_is_stored(model, kind, values):
    model.graph.initializer.add(name="late", data_type=kind, dims=[2], **values)
    with pytest.raises(BundleError, match="tensor 'late' has values that are not finite"):
        check_onnx(model.SerializeToString(), name="m.onnx")


@pytest.mark.parametrize("values", [{"float_data": [1, 2]}, {"raw_data": b"\x00\x00\x80\x7f"}])
def test_finite_numbers_and_a_bound_are_read(model, values):
    model.graph.initializer.add(name="late", data_type=onnx.TensorProto.FLOAT, dims=[2], **values)
    check_onnx(model.SerializeToString(), name="m.onnx")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data_type": onnx.TensorProto.FLOAT8E4M3FN, "raw_data": b"\x7f\x7f"}, "is of type 17"),
        ({"data_type": onnx.TensorProto.BFLOAT16, "int32_data": [0x7FC0, 1]}, "is not stored as raw bytes"),
    ],
)
def test_numbers_that_cannot_be_checked_are_refused(model, fields, message):
    model.graph.initializer.add(name="late", dims=[2], **fields)
    with pytest.raises(BundleError, match=f"'late' .*{message}"):
        check_onnx(model.SerializeToString(), name="m.onnx")


def write_varint(number):
    parts = [number >> shift & 0x7F for shift in range(0, max(1, number.bit_length()), 7)]
    return bytes([*(part | 0x80 for part in parts[:-1]), parts[-1]])


def write_field(number, content, *, key=None):
    """A field of protobuf that is bytes, text or a message; `key` stands for the usual one."""
    return (key or write_varint(number << 3 | 2)) + write_varint(len(content)) + content


GRAPH = 7
OUTSIDE = onnx.TensorProto(
    name="W", data_type=2, dims=[1], data_location=1,
    external_data=[onnx.StringStringEntryProto(key="location", value="secret.bin")],
).SerializeToString()  # fmt: skip
PLAIN = onnx.TensorProto(name="W", data_type=1, dims=[1], raw_data=b"\0\0\0\0").SerializeToString()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (write_field(5, OUTSIDE), "lies in another file"),
        (write_field(5, OUTSIDE, key=bytes.fromhex("aa80808010")), "field 536870917 at byte"),
        (write_field(5, OUTSIDE, key=b"\xaa\x00"), "in too many bytes"),
        (write_field(5, OUTSIDE, key=b"\xaa\x80\x80\x80\x80\x00"), "in too many bytes"),
        (write_field(5, PLAIN + b"\x70" + write_varint(2**32 + 1)), "lies in another file"),
        (write_field(5, PLAIN + write_field(13, b"")), "lies in another file"),
        (write_field(5, b"\x10" + write_varint(2**32 + 1) + b"\x4a\x04\x00\x00\xc0\x7f"), "more than 31 bits"),
        (write_field(5, PLAIN + b"\x10\x01"), "field 2 of a tensor comes more than 1 times"),
        (write_field(5, PLAIN + write_field(9, b"")), "field 9 of a tensor comes more than 1 times"),
        (write_field(5, PLAIN + b"\x48\x01"), "field 9 has wire type 0, expected 2"),
        (write_field(5, PLAIN + b"\x25\x00\x00\xc0\x7f"), "field 4 has wire type 5, expected 2"),
        (write_field(5, PLAIN + b"\x08\x01" * 64), "field 1 of a tensor comes more than 64 times"),
        (write_field(5, PLAIN + b"\x08" + b"\xff" * 9 + b"\x7f"), "in too many bytes"),
        (write_field(1, write_field(5, write_field(5, PLAIN) * 2)), "field 5 comes twice"),
        (write_field(1, write_field(5, write_field(22, write_field(1, PLAIN)) * 2)), "field 22 comes twice"),
        (write_field(1, write_field(5, write_field(22, write_field(2, PLAIN) * 2))), "field 2 comes twice"),
        (b"\x2b\x2c", "wire type 3"),
        (b"\x02\x00", "field 0 at byte"),
        (b"\x2e\x00", "wire type 6"),
        (b"\x2a\x05", "truncated"),
    ],
)
def test_what_another_reader_might_read_otherwise_is_refused(content, message):
    """onnxruntime drops high bits of keys and numbers, merges messages that come twice, and skips other kinds."""
    with pytest.raises(BundleError, match=rf"m\.onnx: .*{message}"):
        check_onnx(write_field(GRAPH, content), name="m.onnx")


def test_a_second_graph_is_refused(model):
    with pytest.raises(BundleError, match="field 7 comes twice"):
        check_onnx(model.SerializeToString() + write_field(GRAPH, b""), name="m.onnx")
    with pytest.raises(BundleError, match="wire type 0, expected 2"):
        check_onnx(model.SerializeToString() + b"\x38\x01", name="m.onnx")


def test_a_file_of_too_many_fields_is_refused(model, monkeypatch):
    content = model.SerializeToString()
    check_onnx(content, name="m.onnx")
    monkeypatch.setattr(maskfast.bundle.onnx_bytes, "MAX_FIELDS", 100)
    with pytest.raises(BundleError, match=r"m\.onnx: is no ONNX file: it has more than 100 fields"):
        check_onnx(content, name="m.onnx")


def test_a_file_of_onnxruntimes_own_format_is_not_opened(model, tmp_path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "model.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    content = (tmp_path / "model.ort").read_bytes()
    onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    with pytest.raises(Exception, match="protobuf parsing failed"):
        open_session(content)


@pytest.mark.parametrize("content", [b"\x3a\xff\xff\x7f", b"\x0b", b"\x80" * 40, b"\x3a\x05\x0a\x03\x2a\x7f\x00"])
def test_broken_bytes_are_one_error(content):
    with pytest.raises(BundleError, match=r"m\.onnx: is no ONNX file"):
        check_onnx(content, name="m.onnx")


def test_a_file_that_disagrees_is_left_out(tmp_path, monkeypatch):
    exact = maskfast.bundle.onnx.run_onnx
    monkeypatch.setattr(maskfast.bundle.onnx, "run_onnx", lambda *given: [each + 2e-4 for each in exact(*given)])
    manifest = write_bundle(tmp_path / "model", make_toy_draft())
    assert "differs from the network's by 0.0002" in manifest.left_out["model.onnx"]
    assert "left out" in manifest.left_out["model.int8.onnx"]
    assert not list((tmp_path / "model").glob("*.onnx"))


def test_a_network_that_cannot_be_exported_is_left_out(tmp_path, monkeypatch):
    class Moody(nn.Module):
        def forward(self, images):
            half = images.float().mean((1, 2))[:, :2]
            return (half, half[:, 0]) if images.sum().item() % 2 else (half, half[:, 1])

    monkeypatch.setattr(maskfast.bundle.onnx, "make_scorer", lambda *_: Moody())
    manifest = write_bundle(tmp_path / "model", make_toy_draft())
    assert "torch.onnx.export failed" in manifest.left_out["model.onnx"]
    assert torch.is_inference_mode_enabled() is False


def test_int8_is_written_where_it_agrees(toy_bundle, toy_draft):
    manifest = read_manifest(toy_bundle)
    assert "model.int8.onnx" not in manifest.left_out
    model = onnx.load(toy_bundle / "model.int8.onnx")
    assert any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    scales = [each for each in model.graph.initializer if each.name.endswith("weight_scale")]
    assert any(len(onnx.numpy_helper.to_array(scale).ravel()) > 1 for scale in scales), "a scale a channel"
    exact, int8 = (load(toy_bundle, backend=name).predict_arrays(toy_draft.check_images) for name in ("onnx", "int8"))
    assert 0 < np.abs(exact - int8).mean() <= 0.01
    measured = json.loads((toy_bundle / "report" / "onnx.json").read_text())["int8_change"]
    assert measured["probability"] == pytest.approx(float(np.abs(exact - int8).mean()), rel=1e-3)
    assert measured["log_loss"] == pytest.approx(
        log_loss(toy_draft.check_labels, int8) - log_loss(toy_draft.check_labels, exact), abs=1e-6
    )


def run_in_floats(content: bytes, images):
    """What the numbers of an 8-bit file say, whatever the processor does with 8 bits."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(content, options).run(["probability"], {"images": images})[0]


@pytest.fixture(scope="module")
def two_views(tmp_path_factory):
    """A bundle whose views are of two sizes, so that two operations share each weight."""
    images = draw_smooth_images(96, size=64)
    draft = make_toy_draft(size=64, views=("plain", "plain@32"), check_images=images, check_labels=np.arange(96) % 2)
    folder = tmp_path_factory.mktemp("views") / "model"
    write_bundle(folder, draft)
    return folder, draft.check_images


def change(how, content):
    return how(content, list(walk_tensors(content)))


def fit(content):
    return change(fit_weights, content)


def make_product(weights: bytes):
    """A file that multiplies `a` (1, 4) uint8 by four int8 weights."""
    helper, tensors = onnx.helper, onnx.TensorProto
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "w", "", "zero"], ["p"])],
        "g",
        [helper.make_tensor_value_info("a", tensors.UINT8, [1, 4])],
        [helper.make_tensor_value_info("p", tensors.INT32, [1, 1])],
        [helper.make_tensor("w", tensors.INT8, [4, 1], weights, raw=True),
         helper.make_tensor("zero", tensors.INT8, [], b"\0", raw=True)],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


@pytest.mark.parametrize("weights", [b"\x7f" * 4, b"\x80" * 4, b"\x7f\x7f\x80\x81"])
def test_products_of_bytes_are_exact_on_any_processor(weights):
    (product,) = open_session(fit(make_product(weights))).run(None, {"a": np.full((1, 4), 255, np.uint8)})
    assert product.item() == 255 * int(np.frombuffer(weights, np.int8).sum())


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="reads /proc/cpuinfo")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors have no VNNI")
def test_weights_stay_signed_where_the_processor_has_instructions_for_8_bits():
    flags = set(Path("/proc/cpuinfo").read_text().split())
    assert overflows() is not bool(flags & {"avx512_vnni", "avx_vnni"})


def test_an_unsigned_answer_is_the_signed_one(toy_bundle, toy_draft, monkeypatch):
    content = (toy_bundle / "model.int8.onnx").read_bytes()
    seen = []
    for answer in (True, False):
        monkeypatch.setattr(maskfast.bundle.onnx_run, "overflows", lambda answer=answer: answer)
        seen.append(open_session(fit(content)).run(["probability"], {"images": toy_draft.check_images})[0])
    assert np.abs(seen[0] - run_in_floats(content, toy_draft.check_images)).mean() < 0.005
    if not overflows():
        assert np.abs(seen[0] - seen[1]).max() < 1e-4


def test_8_bits_do_not_overflow_on_any_processor(toy_bundle, toy_draft, two_views):
    for folder, images in ((toy_bundle, toy_draft.check_images), two_views):
        content = (folder / "model.int8.onnx").read_bytes()
        seen = open_session(fit(content)).run(["probability"], {"images": images})[0]
        assert np.abs(seen - run_in_floats(content, images)).mean() < 0.005


def test_the_model_in_the_package_does_not_overflow(picture_folder):
    predictor = load()
    images = np.stack([np.array(load_square(path, predictor.size, "squish")) for path in picture_folder.iterdir()])
    content = (Path(maskfast.bundle.__file__).parent / "small" / "model.int8.onnx").read_bytes()
    assert np.abs(predictor.predict_arrays(images) - run_in_floats(content, images)).max() < 0.05


def test_unsigned_weights_say_the_same(two_views):
    folder, images = two_views
    signed = (folder / "model.int8.onnx").read_bytes()
    unsigned = change(make_weights_unsigned, signed)
    kinds = [{each.data_type for each in onnx.load_from_string(file).graph.initializer} for file in (signed, unsigned)]
    assert onnx.TensorProto.INT8 in kinds[0]
    assert onnx.TensorProto.INT8 not in kinds[1]
    onnx.checker.check_model(onnx.load_from_string(unsigned))
    np.testing.assert_allclose(run_in_floats(unsigned, images), run_in_floats(signed, images), atol=1e-6)
    served = onnxruntime.InferenceSession(unsigned).run(["probability"], {"images": images})[0]
    assert np.abs(served - run_in_floats(signed, images)).mean() < 0.005


@pytest.mark.parametrize("processor", ["overflows", "multiplies_tiles"])
def test_only_8_bit_files_are_fitted_to_the_processor(processor, toy_bundle, monkeypatch):
    for name in ("overflows", "multiplies_tiles"):
        monkeypatch.setattr(maskfast.bundle.onnx_run, name, lambda able=name == processor: able)
    floats, bits = ((toy_bundle / name).read_bytes() for name in ("model.onnx", "model.int8.onnx"))
    assert fit(floats) is floats
    assert fit(bits) != bits


def test_weights_that_cannot_be_made_unsigned_are_told():
    tensor = onnx.helper.make_tensor("w", onnx.TensorProto.INT8, [1], [3])
    graph = onnx.helper.make_graph([], "g", [], [], [tensor])
    with pytest.raises(ValueError, match="not stored as raw bytes"):
        change(make_weights_unsigned, onnx.helper.make_model(graph).SerializeToString())


def read_int8(content: bytes):
    tensors = {each.name: each for each in onnx.load_from_string(content).graph.initializer}
    return {name: to_array(each) for name, each in tensors.items() if each.data_type == onnx.TensorProto.INT8}


def make_filters(weights, zero=0):
    """A file that convolves pictures (1, channels, 8, 8) by 8-bit filters, as onnxruntime's quantiser writes it."""
    helper, tensors = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("DequantizeLinear", ["a", "a_scale", "a_zero_point"], ["a_float"]),
        helper.make_node("DequantizeLinear", ["w_quantized", "w_scale", "w_zero_point"], ["w_float"], axis=0),
        helper.make_node("Conv", ["a_float", "w_float"], ["p_float"]),
        helper.make_node("QuantizeLinear", ["p_float", "p_scale", "a_zero_point"], ["p"]),
    ]
    count, channels, height, width = weights.shape
    stored = {
        "w_quantized": weights.astype(np.int8),
        "w_zero_point": np.full(count, zero, np.int8),
        "w_scale": np.full(count, 0.01, np.float32),
        "a_scale": np.float32(0.01),
        "p_scale": np.float32(0.5),
        "a_zero_point": np.uint8(128),
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("a", tensors.UINT8, [1, channels, 8, 8])],
        [helper.make_tensor_value_info("p", tensors.UINT8, [1, count, 9 - height, 9 - width])],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def test_wide_filters_with_a_zero_point_say_the_same():
    rng = np.random.default_rng(0)
    content = make_filters(rng.integers(-127, 128, (24, 32, 3, 3)))
    shifted = change(shift_wide_filters, content)
    before, after = read_int8(content), read_int8(shifted)
    for name, values in before.items():
        np.testing.assert_array_equal(after[name], values - 1)
    onnx.checker.check_model(onnx.load_from_string(shifted))
    images = {"a": rng.integers(0, 256, (1, 32, 8, 8), np.uint8)}
    seen = [onnxruntime.InferenceSession(each).run(None, images)[0] for each in (content, shifted)]
    assert len(np.unique(seen[0])) > 10
    if not overflows():
        np.testing.assert_array_equal(*seen)


def test_filters_that_share_a_zero_point_change_it_once():
    rng = np.random.default_rng(0)
    model = onnx.load_from_string(make_filters(rng.integers(-127, 128, (24, 32, 3, 3))))
    other = rng.integers(-127, 128, (24, 32, 3, 3)).astype(np.int8)
    model.graph.initializer.append(onnx.numpy_helper.from_array(other, "w"))
    content = model.SerializeToString()
    before, after = read_int8(content), read_int8(change(shift_wide_filters, content))
    assert set(before) == {"w", "w_quantized", "w_zero_point"}
    for name, values in before.items():
        np.testing.assert_array_equal(after[name], values - 1)


@pytest.mark.parametrize(
    ("shape", "low", "zero"),
    [
        ((24, 32, 1, 1), -127, 0),
        ((24, 1, 3, 3), -127, 0),
        ((24, 3, 3, 3), -127, 0),
        ((24, 32, 3, 3), -128, 0),
        ((24, 32, 3, 3), -127, 5),
    ],
    ids=["a pixel wide", "a channel each", "few channels", "no room", "has a zero point"],
)
def test_other_filters_stay(shape, low, zero):
    weights = np.random.default_rng(0).integers(-127, 128, shape)
    weights.flat[0] = low
    content = make_filters(weights, zero)
    assert change(shift_wide_filters, content) == content


@pytest.mark.parametrize("tiles", [True, False])
def test_answers_are_the_same_with_tiles_and_without(tiles, toy_bundle, toy_draft, two_views, monkeypatch):
    monkeypatch.setattr(maskfast.bundle.onnx_run, "multiplies_tiles", lambda: tiles)
    for folder, images in ((toy_bundle, toy_draft.check_images), two_views):
        content = (folder / "model.int8.onnx").read_bytes()
        seen = open_session(fit(content)).run(["probability"], {"images": images})[0]
        assert np.abs(seen - run_in_floats(content, images)).mean() < 0.005


def test_int8_needs_pictures(tmp_path):
    manifest = write_bundle(tmp_path / "model", make_toy_draft(check_images=None, check_labels=None))
    assert "no validation pictures" in manifest.left_out["model.int8.onnx"]


def test_int8_that_disagrees_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(maskfast.bundle.int8, "MAX_PROBABILITY_CHANGE", 1e-9)
    manifest = write_bundle(tmp_path / "model", make_toy_draft())
    assert "mean probability change" in manifest.left_out["model.int8.onnx"]
    assert "model.onnx" in manifest.sha256
    assert not (tmp_path / "model" / "model.int8.onnx").exists()


def list_exact_convolutions(path):
    """For each convolution, as the exporter counts them, whether its weights are as they were in float32."""
    model = onnx.load(path)
    stored = {tensor.name for tensor in model.graph.initializer}
    found = {node.name: node.input[1] in stored for node in model.graph.node if node.op_type == "Conv"}
    return [found[name] for name in sorted(found, key=lambda name: (len(name), name))]


@pytest.mark.parametrize("tries", [1, 2])
def test_the_first_layers_of_each_network_stay_exact_where_8_bits_change_too_much(tmp_path, monkeypatch, tries):
    monkeypatch.setattr(maskfast.bundle.int8, "EXACT_FIRST", (0, 2, 3))
    measure, seen = maskfast.bundle.int8.compare, []

    def compare(*given):
        seen.append(measure(*given))
        return seen[-1] if len(seen) == tries else maskfast.bundle.int8.Change(1.0)

    monkeypatch.setattr(maskfast.bundle.int8, "compare", compare)
    write_bundle(tmp_path / "model", make_toy_draft(members=2))
    exact = list_exact_convolutions(tmp_path / "model" / "model.int8.onnx")
    first = [True] * 2 if tries == 2 else [False] * 2
    assert exact == [*first, *[False] * (len(exact) // 2 - 2)] * 2
    assert len(seen) == tries


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        ([0.1, 0.6, 0.9, 0.2], ""),
        ([0.16, 0.6, 0.9, 0.2], "mean probability change 0.0150"),
        ([0.1, 0.49, 0.9, 0.2], "accuracy change 0.2500"),
        ([0.1, 0.6, 0.9, 0.22], "log loss 0.0063 worse"),
        ([0.1, 0.6, 0.9, float("nan")], "mean probability change inf"),
    ],
)
def test_the_bounds_of_int8(monkeypatch, seen, reason):
    if "accuracy" in reason:
        monkeypatch.setattr(maskfast.bundle.int8, "MAX_PROBABILITY_CHANGE", 1)
    exact = np.array([0.1, 0.6, 0.9, 0.2])
    change = maskfast.bundle.int8.compare(exact, np.array(seen), np.array([0, 1, 1, 0]), 0.5)
    assert change.describe_excess().startswith(reason)
    assert bool(change.describe_excess()) is bool(reason)
    unknown = maskfast.bundle.int8.compare(exact, np.array(seen), np.array([-1] * 4), 0.5)
    assert (unknown.accuracy, unknown.log_loss) == (None, None)


def test_quantising_leaves_logging_as_it_was(tmp_path, monkeypatch):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    write_bundle(tmp_path / "model", make_toy_draft())
    assert root.handlers == []
