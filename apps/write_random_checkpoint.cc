// write_random_checkpoint: a folder of a published model's shape and size, with random weights, to try loading on.
#include <chrono>

#include <fmt/ranges.h>

#include "engine/random_checkpoint.h"
#include "models/shapes.h"
#include "program.h"

namespace nibble {
namespace {

struct Options {
  std::string shape, format = "mxfp4", out;
  int64_t layers = 0;
};

void run(const Options& options) {
  const auto start = std::chrono::steady_clock::now();
  const int64_t bytes = write_random_checkpoint(
      shape_checkpoint(options.shape, options.layers), options.out,
      {.format = options.format == "nvfp4" ? FormatId::nvfp4 : FormatId::mxfp4, .progress = progress_bar("writing")});
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  fmt::print("{}: {} in {:.1f} s, {:.2f} GB/s\n", options.out, bytes_text(static_cast<double>(bytes)), seconds.count(),
             static_cast<double>(bytes) / seconds.count() / 1e9);
}

}  // namespace
}  // namespace nibble

int main(int argc, char** argv) {
  nibble::Options options;
  CLI::App app{
      "Writes a checkpoint of a published shape with random weights, as large as the real one and stored the same "
      "way:\n"
      "MXFP4 as compressed-tensors has it, NVFP4 as ModelOpt does, each expert by itself; embedding, output, routers\n"
      "and kv_b_proj in BF16; files of 5 GB. It has no tokenizer. The same shape always gives the same weights.",
      "write_random_checkpoint"};
  app.add_option("--shape", options.shape, fmt::format("One of {}", fmt::join(nibble::shape_names(), ", ")))
      ->required();
  app.add_option("--format", options.format, "mxfp4 or nvfp4")
      ->check(CLI::IsMember({"mxfp4", "nvfp4"}))
      ->capture_default_str();
  app.add_option("--layers", options.layers, "Fewer layers; 0: all")
      ->check(CLI::Range(int64_t{0}, int64_t{4096}))
      ->capture_default_str();
  app.add_option("--out", options.out, "The folder to write; it must not hold a model yet")
      ->required()
      ->check(nibble::not_empty);
  app.callback([&] { nibble::run(options); });
  return nibble::run_program(app, argc, argv);
}
