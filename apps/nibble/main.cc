#include "commands.h"

int main(int argc, char** argv) {
  CLI::App app{
      "Decodes 4-bit-float (E2M1: MXFP4, NVFP4) language models at the speed of memory.\n"
      "MODEL is a folder in Hugging Face layout, a .gguf file, or a name that `nibble models` lists. What you asked "
      "for\n"
      "goes to stdout, everything else to stderr. Exit code 0, 1 (failed while working) or 2 (bad arguments or bad "
      "input).",
      "nibble"};
  app.set_version_flag("--version", NIBBLE_VERSION);
  app.require_subcommand(0, 1);
  // Asked here rather than by require_subcommand(1), which would say this of an unknown command too.
  app.callback([&app] {
    if (app.get_subcommands().empty()) throw CLI::RequiredError("A subcommand");
  });
  app.fallthrough(false);
  nibble::add_run_command(app);
  nibble::add_chat_command(app);
  nibble::add_models_command(app);
  nibble::add_plan_command(app);
  nibble::add_bench_command(app);
  nibble::add_logits_command(app);
  nibble::add_quantize_command(app);
  nibble::add_eval_command(app);
  nibble::add_tokenize_command(app);
  nibble::add_template_command(app);
  nibble::add_machine_command(app);
  return nibble::run_program(app, argc, argv);
}
