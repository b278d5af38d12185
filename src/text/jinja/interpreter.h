// Renders a parsed template.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "text/jinja/ast.h"
#include "text/jinja/value.h"

namespace nibble::jinja {

// Names of one block; what is not here is looked for outside. An assignment stays in the block it is made in.
struct Scope {
  std::shared_ptr<Scope> outer;
  std::unordered_map<std::string, Value> names;
};
using ScopePointer = std::shared_ptr<Scope>;

class Interpreter {
 public:
  // The rendered template with these variables. Fails (see value.h) with the line in line().
  std::string render(const Block& block, const Dict& variables);

  int line() const { return line_; }
  Budget& budget() { return budget_; }

  Value call(const Value& callee, const Arguments& arguments);

  // A namespace that ends with the rendering, even if values in it hold each other.
  std::shared_ptr<Namespace> make_namespace();

 private:
  friend struct Macro;
  friend struct Loop;
  enum class Flow { next, break_loop, continue_loop };
  // Counts how deep execute and evaluate are in each other. A level takes about 1 KiB of stack, a few times that with
  // sanitizers.
  struct Level {
    static constexpr int kMax = 500;
    explicit Level(int& counter) : level(counter) {
      if (level >= kMax) fail("blocks, expressions and macros are nested more than {} deep", kMax);
      level++;
    }
    ~Level() { level--; }
    int& level;
  };

  Flow execute(const Block& block, const ScopePointer& scope, std::string& out);
  Flow execute(const Statement& statement, const ScopePointer& scope, std::string& out);
  Flow execute_if(const Statement& statement, const ScopePointer& scope, std::string& out);
  Flow execute_for(const Statement& statement, const Value& sequence, int depth, const ScopePointer& scope,
                   std::string& out);
  void execute_call(const Statement& statement, const ScopePointer& scope, std::string& out);
  Flow filtered_block(const Statement& statement, const ScopePointer& scope, Value& value);
  void assign(const Target& target, const Value& value, Scope& scope);
  void print(std::string_view text, std::string& out);

  Value evaluate(const Expr& expr, const ScopePointer& scope);
  Value evaluate_operator(const Expr& expr, const ScopePointer& scope);
  Value evaluate_access(const Expr& expr, const ScopePointer& scope);
  Value evaluate_literal(const Expr& expr, const ScopePointer& scope);
  Value look_up(const std::string& name, const Scope& scope) const;
  Arguments arguments_of(const Expr& expr, const ScopePointer& scope);

  Budget budget_;
  int line_ = 1;
  int level_ = 0;
  std::vector<std::shared_ptr<Namespace>> namespaces_;
};

}  // namespace nibble::jinja
