// GGUF files. A block type keeps a group's scale in front of its codes, and orders the codes its own way; here they
// become rows of codes and rows of scales:
//
//   type    bytes of a block   weights   order of the nibbles
//   MXFP4   e[1], q[16]        32        low nibble of q[j] is element j, high nibble is j + 16
//   Q4_0    d[2], q[16]        32        the same
//   Q4_1    d[2], m[2], q[16]  32        the same
//   Q8_0    d[2], q[32]        32
//   NVFP4   d[4], q[32]        64        in each 16 of them, low nibble of byte j of 8 is j, high nibble is j + 8
//
// F32, F16 and BF16 rows are taken as they are, unless the rows of q and k have to be put back in order.
#include <algorithm>
#include <charconv>

#include "weights/importer_core.h"

namespace nibble {
namespace {

// One group in ggml's order, first half in the low nibbles, second half in the high ones, to ours: even k low, odd
// high.
void reorder_nibbles(const uint8_t* ggml, int64_t num_bytes, uint8_t* codes) {
  for (int64_t j = 0; j < num_bytes / 2; j++) {
    codes[j] = static_cast<uint8_t>((ggml[2 * j] & 15) | (ggml[2 * j + 1] << 4));
    codes[num_bytes / 2 + j] = static_cast<uint8_t>((ggml[2 * j] >> 4) | (ggml[2 * j + 1] & 0xF0));
  }
}

template <class Format>
struct GgmlBlock {
  static constexpr int64_t group_size = Format::group_size;
  static constexpr int64_t size = Format::group_scale_bytes + Format::group_size * Format::code_bits / 8;
  static void split(const uint8_t* block, uint8_t* codes, uint8_t* scale) {
    std::memcpy(scale, block, Format::group_scale_bytes);
    if constexpr (Format::code_bits == 8)
      std::memcpy(codes, block + Format::group_scale_bytes, Format::group_size);
    else
      reorder_nibbles(block + Format::group_scale_bytes, Format::group_size / 2, codes);
  }
};

// Four groups of 16 in a block. ggml reads the scale 0x7F, which is NaN in E4M3, as 0.
template <>
struct GgmlBlock<Nvfp4> {
  static constexpr int64_t group_size = 64;
  static constexpr int64_t size = 36;
  static void split(const uint8_t* block, uint8_t* codes, uint8_t* scales) {
    for (int64_t group = 0; group < 4; group++) {
      scales[group] = block[group] == 0x7F ? 0 : block[group];
      reorder_nibbles(block + 4 + 8 * group, 8, codes + 8 * group);
    }
  }
};

std::optional<FormatId> format_of(DType dtype) {
  switch (dtype) {
    case DType::q8_0: return FormatId::q8_0;
    case DType::q4_0: return FormatId::q4_0;
    case DType::q4_1: return FormatId::q4_1;
    case DType::mxfp4: return FormatId::mxfp4;
    case DType::nvfp4: return FormatId::nvfp4;
    default: return plain_format(dtype);
  }
}

class GgufImporter final : public Importer {
 public:
  explicit GgufImporter(std::shared_ptr<const Checkpoint> open) : Importer(std::move(open)) {}

  bool has(const TensorName& matrix) const override { return checkpoint().find(matrix.gguf + ".weight") != nullptr; }

 protected:
  StoredVector locate_vector(const TensorName& name) const override { return {.tensor = name.gguf}; }
  StoredMatrix locate(const MatrixRequest& request) override;
  CanonicalWeight load(const MatrixRequest& request, const StoredMatrix& stored) const override;
  bool is_unused(const Tensor& tensor) const override;
};

StoredMatrix GgufImporter::locate(const MatrixRequest& request) {
  const Tensor& weight = take(request.name.gguf + ".weight");
  const std::optional<FormatId> format = format_of(weight.dtype);
  if (!format)
    fail(weight, "type {} is not read; F32, F16, BF16, Q8_0, Q4_0, Q4_1, MXFP4 and NVFP4 are",
         dtype_name(weight.dtype));
  expect_columns(weight, request, request.K);
  expect_whole_groups(weight, request.K, dtype_block(weight.dtype).elements);
  expect_pairs(weight, request.N, request.gguf_permuted_heads);

  const Tensor* tensor_scale = take_if_present(request.name.gguf + ".scale");
  if (tensor_scale != nullptr) {
    if (!has_tensor_scale(*format))
      fail(*tensor_scale, "a tensor scale beside codes of {}, which is read only beside NVFP4",
           dtype_name(weight.dtype));
    expect_dtype(*tensor_scale, {DType::f32});
    if (tensor_scale->shape != std::vector<int64_t>{1}) expect_shape(*tensor_scale, {request.E});
  }
  return {.format = *format,
          .codes = &weight,
          .tensor_scale = tensor_scale,
          .source = std::string(dtype_name(weight.dtype))};
}

CanonicalWeight GgufImporter::load(const MatrixRequest& request, const StoredMatrix& stored) const {
  const bool is_plain = plain_format(stored.codes->dtype).has_value();
  if (is_plain && request.gguf_permuted_heads == 0) return borrow(request, stored);

  OwnedWeight owned = own(request, stored);
  visit_format(stored.format, [&](auto format) {
    using Format = decltype(format);
    const int64_t row_codes = code_bytes<Format>(request.K), row_scales = scale_bytes<Format>(request.K);
    for (int64_t row = 0; row < request.E * request.N; row++) {
      const int64_t e = row / request.N, n = row % request.N;
      const int64_t file_row = e * request.N + gguf_row(n, request.N, request.gguf_permuted_heads);
      uint8_t* codes = owned.codes + row * row_codes;
      if constexpr (Format::group_scale_bytes == 0) {
        std::memcpy(codes, stored.codes->bytes.data() + file_row * row_codes, static_cast<size_t>(row_codes));
      } else {
        using Block = GgmlBlock<Format>;
        uint8_t* scales = owned.scales + row * row_scales;
        const int64_t num_blocks = request.K / Block::group_size;
        const uint8_t* blocks = stored.codes->bytes.data() + file_row * num_blocks * Block::size;
        for (int64_t b = 0; b < num_blocks; b++)
          Block::split(blocks + b * Block::size, codes + b * (row_codes / num_blocks),
                       scales + b * (row_scales / num_blocks));
      }
    }
  });
  return std::move(owned.weight);
}

// Activation scales, the rotation's frequencies (read with the configuration), and layers that predict more than the
// next token, which are the last ones of block_count.
bool GgufImporter::is_unused(const Tensor& tensor) const {
  const std::string_view name = tensor.name;
  if (name.ends_with(".input_scale") || name == "rope_freqs.weight") return true;

  const auto& metadata = checkpoint().config;
  const auto number = [&](const std::string& key) -> int64_t {
    const auto it = metadata.find(key);
    return it != metadata.end() && it->is_number_integer() ? it->get<int64_t>() : 0;
  };
  const auto architecture = metadata.is_object() ? metadata.find("general.architecture") : metadata.end();
  if (architecture == metadata.end() || !architecture->is_string()) return false;
  const auto prefix = architecture->get<std::string>();
  const int64_t num_predicting = number(prefix + ".nextn_predict_layers");
  int64_t layer = -1;
  if (name.starts_with("blk.")) std::from_chars(name.data() + 4, name.data() + name.size(), layer);
  return num_predicting > 0 && layer >= number(prefix + ".block_count") - num_predicting;
}

}  // namespace

std::unique_ptr<WeightSource> make_gguf_importer(std::shared_ptr<const Checkpoint> checkpoint) {
  return std::make_unique<GgufImporter>(std::move(checkpoint));
}

}  // namespace nibble
