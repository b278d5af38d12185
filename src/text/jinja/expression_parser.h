// The part of the parser that reads expressions, and the tokens that both parts read from.
#pragma once

#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/ast.h"
#include "text/jinja/lexer.h"

namespace nibble::jinja {

// How often an expression has named what only some macros have.
struct SpecialNames {
  int caller = 0, varargs = 0, kwargs = 0;
};

class ExpressionParser {
 public:
  ExpressionParser(std::vector<Token> tokens, int& line) : tokens_(std::move(tokens)), line_(line) { line_ = 1; }

  const Token& current() const { return tokens_[at_]; }
  const Token& next() const { return tokens_[at_ + 1 < tokens_.size() ? at_ + 1 : at_]; }
  Token advance();
  bool is_op(std::string_view op) const { return current().kind == TokenKind::op && current().text == op; }
  bool is_name(std::string_view name) const { return current().kind == TokenKind::name && current().text == name; }
  bool take_op(std::string_view op);
  bool take_name(std::string_view name);
  void expect_op(std::string_view op);
  void expect_name(std::string_view name);
  std::string expect_identifier(std::string_view what);
  [[noreturn]] void fail_at_token(std::string_view expected) const;

  ExprPointer expression();                               // with if-else
  ExprPointer tuple(bool with_condition = true);          // one expression, or several with commas between them
  ExprPointer filters(ExprPointer value, bool is_block);  // the filters after `value`; in a block the first has no bar
  void arguments(Expr& call);                             // "(" has been read

  SpecialNames special_names() const { return special_names_; }

  // Within an if, a filter or test that does not exist is an error only when it is used.
  bool set_soft(bool is_soft) { return std::exchange(is_soft_, is_soft); }

 private:
  ExprPointer make(ExprKind kind, std::vector<ExprPointer> operands = {}, std::string name = {});
  ExprPointer finish(ExprPointer expr) const;
  ExprPointer logical_or();
  ExprPointer logical_and();
  ExprPointer logical_not();
  ExprPointer compare();
  ExprPointer sum();
  ExprPointer concat();
  ExprPointer product();
  ExprPointer power();
  ExprPointer unary(bool with_filters = true);
  ExprPointer primary();
  ExprPointer postfix(ExprPointer value);
  ExprPointer call(ExprPointer function);  // behind the "("
  ExprPointer subscript(ExprPointer value);
  ExprPointer filters_and_tests(ExprPointer value);
  ExprPointer test(ExprPointer value);
  std::string dotted_name(std::string_view what);
  bool is_conditional() const;

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int& line_;
  int open_ = 0;  // expressions that are being read
  bool is_soft_ = false;
  SpecialNames special_names_;
};

}  // namespace nibble::jinja
