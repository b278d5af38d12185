#include "text/jinja/parser.h"

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "text/jinja/expression_parser.h"

namespace nibble::jinja {

namespace {

constexpr int kMaxBlocks = 60;  // blocks in blocks

class Parser {
 public:
  Parser(std::string_view source, int& line) : in_(tokenize(source, line), line), line_(line) {}

  Block run() {
    Block block = body({});
    return block;
  }

 private:
  using Ends = std::initializer_list<std::string_view>;

  std::unique_ptr<Statement> make(StatementKind kind) const {
    auto statement = std::make_unique<Statement>();
    statement->kind = kind;
    statement->line = line_;
    return statement;
  }

  void end_tag() {
    if (in_.current().kind != TokenKind::block_end) in_.fail_at_token("'%}'");
    in_.advance();
  }

  // Statements up to a tag that begins with one of `ends`, whose name is not read yet; without `ends`, to the end.
  Block body(Ends ends) {
    if (++open_ > kMaxBlocks) fail("blocks are nested more than {} deep", kMaxBlocks);
    Block block;
    while (true) {
      const Token token = in_.advance();
      if (token.kind == TokenKind::end) {
        if (ends.size() > 0) fail("the template ends, {{% {} %}} expected", *(ends.end() - 1));
        break;
      }
      if (token.kind == TokenKind::text) {
        block.push_back(make(StatementKind::text));
        block.back()->text = token.text;
      } else if (token.kind == TokenKind::variable_begin) {
        auto output = make(StatementKind::output);
        output->expr = in_.tuple();
        if (in_.current().kind != TokenKind::variable_end) in_.fail_at_token("'}}'");
        in_.advance();
        block.push_back(std::move(output));
      } else {  // a block tag: nothing else can stand between tags
        const auto is_end = [&](std::string_view name) { return in_.is_name(name); };
        if (std::any_of(ends.begin(), ends.end(), is_end)) break;
        block.push_back(statement());
      }
    }
    open_--;
    return block;
  }

  // The body of a tag that ends with `end` alone.
  Block whole_body(std::string_view end) {
    end_tag();
    Block block = body({end});
    in_.expect_name(end);
    end_tag();
    return block;
  }

  std::unique_ptr<Statement> statement() {
    const std::string name = in_.expect_identifier("the name of a statement");
    if (name == "if") return if_statement();
    if (name == "for") return for_statement();
    if (name == "set") return set_statement();
    if (name == "macro") return macro_statement();
    if (name == "call") return call_statement();
    if (name == "filter") return filter_statement();
    if (name == "with") return with_statement();
    if (name == "print") return print_statement();
    if (name == "generation") {
      auto statement = make(StatementKind::scope);
      statement->body = macro_body("endgeneration");
      return statement;
    }
    if (name == "break" || name == "continue") {
      if (loops_ == 0) fail("{} outside of a loop", name);
      auto statement = make(name == "break" ? StatementKind::break_ : StatementKind::continue_);
      end_tag();
      return statement;
    }
    for (const std::string_view refused : {"include", "import", "from", "extends", "block", "autoescape"})
      if (name == refused) fail("'{}' is not supported: a chat template stands alone; write its text here", name);
    fail("unknown statement '{}'", name);
  }

  std::unique_ptr<Statement> if_statement() {
    auto statement = make(StatementKind::if_);
    const bool was_soft = in_.set_soft(true);
    while (true) {
      Branch branch;
      branch.condition = in_.tuple(false);
      if (in_.is_name("if")) fail("'if' after a condition; brackets expected");
      end_tag();
      branch.body = body({"elif", "else", "endif"});
      statement->branches.push_back(std::move(branch));
      if (!in_.take_name("elif")) break;
    }
    if (in_.take_name("else")) {
      end_tag();
      statement->else_body = body({"endif"});
    }
    in_.expect_name("endif");
    end_tag();
    in_.set_soft(was_soft);
    return statement;
  }

  Target target(bool with_attribute) {
    Target first = target_item(with_attribute);
    if (!in_.is_op(",")) return first;
    Target several;
    several.targets.push_back(std::move(first));
    while (in_.take_op(",") && !in_.is_name("in") && !in_.is_op("="))
      several.targets.push_back(target_item(with_attribute));
    return several;
  }

  Target target_item(bool with_attribute) {
    if (in_.take_op("(")) {
      if (++open_ > kMaxBlocks) fail("names are nested more than {} deep", kMaxBlocks);
      Target inner = target(with_attribute);
      open_--;
      in_.expect_op(")");
      return inner;
    }
    Target item;
    item.name = in_.expect_identifier("a name to assign to");
    for (const std::string_view constant : {"true", "false", "none", "True", "False", "None"})
      if (item.name == constant) fail("'{}' cannot be assigned to", constant);
    if (item.name == "loop" && fors_ > 0) fail("'loop' cannot be assigned to in a loop");
    if (with_attribute && in_.take_op(".")) item.attribute = in_.expect_identifier("the name of an attribute");
    return item;
  }

  std::unique_ptr<Statement> for_statement() {
    auto statement = make(StatementKind::for_);
    const bool was_soft = in_.set_soft(false);
    fors_++;
    statement->target = target(false);
    in_.expect_name("in");
    statement->expr = in_.tuple(false);
    if (in_.take_name("if")) statement->condition = in_.expression();
    statement->is_recursive = in_.take_name("recursive");
    end_tag();
    const int outer_loops = std::exchange(loops_, 1);
    statement->body = body({"else", "endfor"});
    loops_ = statement->is_recursive ? 0 : outer_loops;  // break in the else part leaves the loop around this one
    if (in_.take_name("else")) {
      end_tag();
      statement->else_body = body({"endfor"});
    }
    loops_ = outer_loops;
    fors_--;
    in_.set_soft(was_soft);
    in_.expect_name("endfor");
    end_tag();
    return statement;
  }

  // The place of a block's text among its filters.
  ExprPointer block_text() const {
    auto expr = std::make_unique<Expr>();
    expr->kind = ExprKind::name;
    expr->line = line_;
    expr->name = kBlockText;
    return expr;
  }

  std::unique_ptr<Statement> set_statement() {
    auto statement = make(StatementKind::set);
    statement->target = target(true);
    if (in_.take_op("=")) {
      statement->expr = in_.tuple();
      end_tag();
      return statement;
    }
    statement->kind = StatementKind::set_block;
    const bool was_soft = in_.set_soft(false);
    statement->expr = in_.filters(block_text(), false);
    statement->body = whole_body("endset");
    in_.set_soft(was_soft);
    return statement;
  }

  std::vector<Parameter> parameters() {
    std::vector<Parameter> list;
    in_.expect_op("(");
    while (!in_.is_op(")")) {
      Parameter parameter{in_.expect_identifier("the name of a parameter"), nullptr};
      if (in_.take_op("=")) {
        parameter.fallback = in_.expression();
      } else if (!list.empty() && list.back().fallback != nullptr) {
        fail("the parameter '{}' without a default follows one with a default", parameter.name);
      } else if (parameter.name == "caller") {
        fail("the parameter 'caller' needs a default");
      }
      list.push_back(std::move(parameter));
      if (!in_.take_op(",")) break;
    }
    in_.expect_op(")");
    return list;
  }

  Block macro_body(std::string_view end) {
    const int outer_loops = std::exchange(loops_, 0);  // break does not leave a macro
    const bool was_soft = in_.set_soft(false);
    Block block = whole_body(end);
    in_.set_soft(was_soft);
    loops_ = outer_loops;
    return block;
  }

  // The body, and which of the names that every macro could have it uses: a macro takes no arguments beyond its
  // parameters unless it looks at them.
  void special_body(Statement& macro, std::string_view end) {
    const SpecialNames before = in_.special_names();
    macro.body = macro_body(end);
    const SpecialNames after = in_.special_names();
    const auto is_parameter = [&](std::string_view name) {
      return std::any_of(macro.parameters.begin(), macro.parameters.end(),
                         [&](const Parameter& parameter) { return parameter.name == name; });
    };
    macro.takes_caller = is_parameter("caller") || after.caller > before.caller;
    macro.takes_varargs = !is_parameter("varargs") && after.varargs > before.varargs;
    macro.takes_kwargs = !is_parameter("kwargs") && after.kwargs > before.kwargs;
  }

  std::unique_ptr<Statement> macro_statement() {
    auto statement = make(StatementKind::macro);
    statement->text = in_.expect_identifier("the name of a macro");
    statement->parameters = parameters();
    special_body(*statement, "endmacro");
    return statement;
  }

  std::unique_ptr<Statement> print_statement() {
    auto statement = make(StatementKind::output);
    statement->expr = std::make_unique<Expr>();
    statement->expr->kind = ExprKind::concat;
    statement->expr->line = line_;
    while (in_.current().kind != TokenKind::block_end) {
      if (!statement->expr->operands.empty()) in_.expect_op(",");
      statement->expr->operands.push_back(in_.expression());
    }
    end_tag();
    return statement;
  }

  std::unique_ptr<Statement> call_statement() {
    auto statement = make(StatementKind::call_block);
    if (in_.is_op("(")) statement->parameters = parameters();
    statement->expr = in_.expression();
    if (statement->expr->kind != ExprKind::call) fail("call: the call of a macro expected");
    special_body(*statement, "endcall");
    return statement;
  }

  std::unique_ptr<Statement> filter_statement() {
    auto statement = make(StatementKind::filter_block);
    const bool was_soft = in_.set_soft(false);
    statement->expr = in_.filters(block_text(), true);
    statement->body = whole_body("endfilter");
    in_.set_soft(was_soft);
    return statement;
  }

  std::unique_ptr<Statement> with_statement() {
    auto statement = make(StatementKind::with);
    const bool was_soft = in_.set_soft(false);
    while (in_.current().kind != TokenKind::block_end) {
      if (!statement->assignments.empty()) in_.expect_op(",");
      Target names = target(false);
      in_.expect_op("=");
      statement->assignments.emplace_back(std::move(names), in_.expression());
    }
    statement->body = whole_body("endwith");
    in_.set_soft(was_soft);
    return statement;
  }

  ExpressionParser in_;
  int& line_;
  int open_ = 0;
  int loops_ = 0;  // whether break leaves a loop
  int fors_ = 0;   // for tags around this place
};

}  // namespace

Block parse_template(std::string_view source, int& line) { return Parser(source, line).run(); }

}  // namespace nibble::jinja
