// nibble quantize: a checkpoint's matrices in FP4, as a folder that other programs read too.
#include "engine/quantize.h"

#include <cstdio>

#include "commands.h"

namespace nibble {

namespace {

struct QuantizeArguments {
  std::string path, format, out;
  std::vector<std::string> keep;
  bool all = false, plain = false, json = false;
  int threads = 0;
};

void run_quantize(const QuantizeArguments& a) {
  const std::vector<QuantizedTensor> tensors =
      quantize(a.path, a.out,
               {.format = a.format == "nvfp4" ? FormatId::nvfp4 : FormatId::mxfp4,
                .search = a.plain ? ScaleSearch::plain : ScaleSearch::best,
                .all = a.all,
                .keep = a.keep,
                .num_threads = a.threads,
                .progress = progress_bar("quantizing")});
  if (a.json) {
    nlohmann::ordered_json json;
    json["out"] = a.out;
    for (const QuantizedTensor& t : tensors)
      json["tensors"].push_back(
          {{"name", t.name}, {"from", t.from}, {"to", t.to}, {"bytes", t.bytes}, {"relative_error", t.relative_error}});
    print_json(json);
    return;
  }
  fmt::print("{:<48} {:>8} {:>8} {:>10} {:>10}\n", "tensor", "from", "to", "bytes", "error");
  int64_t bytes = 0;
  for (const QuantizedTensor& t : tensors) {
    fmt::print("{:<48} {:>8} {:>8} {:>10} {:>9.2f}%\n", t.name, t.from, t.to, bytes_text(static_cast<double>(t.bytes)),
               100 * t.relative_error);
    bytes += t.bytes;
  }
  fmt::print("{}: {} matrices, {}\n", a.out, tensors.size(), bytes_text(static_cast<double>(bytes)));
}

}  // namespace

void add_quantize_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("quantize", "Write a checkpoint's matrices in FP4");
  command->footer(
      "Writes a folder in Hugging Face layout: nvfp4 as NVIDIA's ModelOpt has it, mxfp4 as compressed-tensors has it, "
      "with\n"
      "tokenizer and chat template. The matrices inside the layers become FP4, but for routers and latent attention's\n"
      "kv_b_proj; embedding and output stay, unless --all.\n"
      "Scales are searched for the least squared error. The table gives each tensor's error: the root of the squared\n"
      "errors over the root of the squares.\n\n"
      "  nibble quantize model.gguf --format nvfp4 --out models/model-nvfp4");
  auto a = std::make_shared<QuantizeArguments>();
  add_model_option(*command, a->path);
  command->add_option("--format", a->format, "nvfp4 or mxfp4")->required()->check(CLI::IsMember({"nvfp4", "mxfp4"}));
  command->add_option("--out", a->out, "The folder to write; it must not hold a model yet")
      ->required()
      ->check(not_empty);
  command->add_flag("--all", a->all, "The output matrix too; the embedding, of which a step reads one row, stays");
  command->add_option("--keep", a->keep, "A regular expression: tensors in whose name it is found stay as they are")
      ->check(not_empty)
      ->take_all()
      ->allow_extra_args(false);
  command->add_flag("--plain", a->plain, "Scales as the formats' producers round them, without a search");
  command->add_option("--threads", a->threads, "Threads. Default, as with 0: one for each processor")
      ->envname("NIBBLE_THREADS")
      ->check(CLI::Range(0, 1024));
  command->add_flag("--json", a->json, "JSON instead of a table");
  command->callback([a] { run_quantize(*a); });
}

}  // namespace nibble
