#include "checkpoint/gguf.h"
#include "engine/text.h"
#include "fuzz/importer_reads.h"
#include "fuzz/targets.h"
#include "models/config.h"
#include "text/chat_template.h"

namespace nibble {

void fuzz_gguf(Bytes bytes) {
  auto checkpoint = std::make_shared<Checkpoint>();
  checkpoint->container = Container::gguf;
  checkpoint->path = "file";
  bool is_read = false;
  input_error_of("file: ", [&] {
    auto contents = parse_gguf(bytes, "file");
    for (const auto& [name, tensor] : contents.tensors) {
      expect(tensor.bytes.size() == static_cast<size_t>(tensor_bytes(tensor.dtype, tensor.shape, "")), "whole tensors");
      expect(tensor.bytes.empty() || (tensor.bytes.data() >= bytes.data() &&
                                      tensor.bytes.data() + tensor.bytes.size() <= bytes.data() + bytes.size()),
             "tensors inside the file");
    }
    checkpoint->config = std::move(contents.metadata);
    checkpoint->tensors = std::move(contents.tensors);
    is_read = true;
  });
  if (!is_read) return;
  input_error_of("file: ", [&] { read_decoder_config(*checkpoint); });
  input_error_of("file: ", [&] { stop_tokens(*checkpoint); });
  input_error_of("file: ", [&] { find_tokenizer(*checkpoint); });
  input_error_of("", [&] {
    if (const auto source = find_chat_template(*checkpoint)) ChatTemplate parsed(*source);
  });
  read_everything(checkpoint);
}

}  // namespace nibble
