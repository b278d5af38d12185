// The commands of `nibble`, one file each. Each function adds its command, options and help to the app.
#pragma once

#include "engine/engine.h"
#include "engine/session.h"
#include "program.h"

namespace nibble {

void add_run_command(CLI::App& app);
void add_chat_command(CLI::App& app);
void add_models_command(CLI::App& app);
void add_plan_command(CLI::App& app);
void add_bench_command(CLI::App& app);
void add_logits_command(CLI::App& app);
void add_quantize_command(CLI::App& app);
void add_eval_command(CLI::App& app);
void add_tokenize_command(CLI::App& app);
void add_template_command(CLI::App& app);
void add_machine_command(CLI::App& app);

// The options that every command has which runs a model.
struct ModelArguments {
  std::string path;
  std::string backend;
  int threads = 0;
  int64_t ctx = 4096, num_sequences = 1;
  std::string kv_cache_type;
  int activation_bits = 0;     // 0: the backend's default
  std::string packed_cache;    // a folder; empty: none
  bool measures_roof = false;  // EngineOptions::measures_roof
};

// The option MODEL: a path, or a name that `nibble models` lists, which becomes its path. Required.
CLI::Option* add_model_option(CLI::App& command, std::string& path);

// Returns the option MODEL, which is required unless the caller says otherwise.
CLI::Option* add_model_arguments(CLI::App& command, ModelArguments& arguments);

BackendOptions backend_options(const ModelArguments& arguments);
std::optional<KvCacheType> kv_cache_type(const ModelArguments& arguments);

// Loads the model, with a progress bar, and says on stderr which backend runs it.
std::unique_ptr<Engine> load_engine(const ModelArguments& arguments, ModelFiles files);

// Throws InputError unless the tokens fit the model's vocabulary and the context.
void check_prompt(std::span<const int32_t> tokens, const Model& model, const ModelArguments& arguments);

// A sentence for reports if what a step reads fits into the machine's last-level cache, so that it may be read faster
// than the roof; else empty.
std::string cache_note(double bytes_per_token);

// "1,2,3" as token ids. Throws InputError for anything else.
std::vector<int32_t> parse_tokens(const std::string& text);

// The whole of stdin. Throws InputError if it cannot be read.
std::string read_stdin();

}  // namespace nibble
