#include "text/jinja/expression_parser.h"

#include <algorithm>
#include <charconv>
#include <functional>

#include "text/jinja/builtins.h"

namespace nibble::jinja {

namespace {

// Of the tree, and of brackets in brackets: what a recursive walk can take on a small stack.
constexpr int kMaxDepth = 200;
constexpr int kMaxOpen = 60;

}  // namespace

Token ExpressionParser::advance() {
  Token token = tokens_[at_];
  if (at_ + 1 < tokens_.size()) at_++;
  line_ = current().line;
  return token;
}

bool ExpressionParser::take_op(std::string_view op) {
  if (!is_op(op)) return false;
  advance();
  return true;
}

bool ExpressionParser::take_name(std::string_view name) {
  if (!is_name(name)) return false;
  advance();
  return true;
}

void ExpressionParser::fail_at_token(std::string_view expected) const {
  switch (current().kind) {
    case TokenKind::end: fail("the template ends, {} expected", expected);
    case TokenKind::text: fail("text, {} expected", expected);
    default: fail("'{}', {} expected", current().text, expected);
  }
}

void ExpressionParser::expect_op(std::string_view op) {
  if (!take_op(op)) fail_at_token(fmt::format("'{}'", op));
}

void ExpressionParser::expect_name(std::string_view name) {
  if (!take_name(name)) fail_at_token(fmt::format("'{}'", name));
}

std::string ExpressionParser::expect_identifier(std::string_view what) {
  if (current().kind != TokenKind::name) fail_at_token(what);
  return advance().text;
}

ExprPointer ExpressionParser::make(ExprKind kind, std::vector<ExprPointer> operands, std::string name) {
  auto expr = std::make_unique<Expr>();
  expr->kind = kind;
  expr->line = line_;
  expr->name = std::move(name);
  expr->operands = std::move(operands);
  return finish(std::move(expr));
}

// Recomputes the depth once the operands are complete.
ExprPointer ExpressionParser::finish(ExprPointer expr) const {
  for (const ExprPointer& operand : expr->operands)
    if (operand != nullptr) expr->depth = std::max(expr->depth, operand->depth + 1);
  for (const auto& [name, value] : expr->keywords) expr->depth = std::max(expr->depth, value->depth + 1);
  for (const ExprPointer& rest : {std::cref(expr->rest), std::cref(expr->named_rest)})
    if (rest != nullptr) expr->depth = std::max(expr->depth, rest->depth + 1);
  if (expr->depth > kMaxDepth) fail("an expression is more than {} levels deep; cut it in two with set", kMaxDepth);
  return expr;
}

namespace {

std::vector<ExprPointer> pair(ExprPointer a, ExprPointer b) {
  std::vector<ExprPointer> operands;
  operands.push_back(std::move(a));
  operands.push_back(std::move(b));
  return operands;
}

std::vector<ExprPointer> single(ExprPointer a) {
  std::vector<ExprPointer> operands;
  operands.push_back(std::move(a));
  return operands;
}

}  // namespace

ExprPointer ExpressionParser::expression() {
  if (++open_ > kMaxOpen) fail("expressions are nested more than {} deep", kMaxOpen);
  const bool was_soft = std::exchange(is_soft_, is_soft_ || is_conditional());
  ExprPointer value = logical_or();
  while (take_name("if")) {
    auto operands = pair(std::move(value), logical_or());
    if (take_name("else")) operands.push_back(expression());
    value = make(ExprKind::conditional, std::move(operands));
  }
  is_soft_ = was_soft;
  open_--;
  return value;
}

// Whether the expression that begins here goes on with "if", as far as brackets tell.
bool ExpressionParser::is_conditional() const {
  int open = 0;
  for (size_t i = at_; i < tokens_.size() && i < at_ + 200; i++) {
    const Token& token = tokens_[i];
    if (token.kind == TokenKind::block_end || token.kind == TokenKind::variable_end) return false;
    if (token.kind == TokenKind::op && token.text.size() == 1) {
      if (std::string_view("([{").find(token.text[0]) != std::string_view::npos) open++;
      if (std::string_view(")]}").find(token.text[0]) != std::string_view::npos && --open < 0) return false;
      if (open == 0 && token.text[0] == ',') return false;
    }
    if (open == 0 && token.kind == TokenKind::name && token.text == "if") return true;
  }
  return false;
}

ExprPointer ExpressionParser::tuple(bool with_condition) {
  const auto item = [&] { return with_condition ? expression() : logical_or(); };
  const auto is_over = [&] {
    return current().kind == TokenKind::block_end || current().kind == TokenKind::variable_end || is_op(")") ||
           is_name("in") || is_name("recursive") || (!with_condition && is_name("if"));
  };
  if (is_op(")")) return make(ExprKind::tuple);
  ExprPointer first = item();
  if (!is_op(",")) return first;
  auto operands = single(std::move(first));
  while (take_op(",") && !is_over()) operands.push_back(item());
  return make(ExprKind::tuple, std::move(operands));
}

ExprPointer ExpressionParser::logical_or() {
  ExprPointer left = logical_and();
  while (take_name("or")) left = make(ExprKind::logical_or, pair(std::move(left), logical_and()));
  return left;
}

ExprPointer ExpressionParser::logical_and() {
  ExprPointer left = logical_not();
  while (take_name("and")) left = make(ExprKind::logical_and, pair(std::move(left), logical_not()));
  return left;
}

ExprPointer ExpressionParser::logical_not() {
  if (!take_name("not")) return compare();
  if (++open_ > kMaxOpen) fail("expressions are nested more than {} deep", kMaxOpen);
  ExprPointer operand = logical_not();
  open_--;
  return make(ExprKind::logical_not, single(std::move(operand)));
}

ExprPointer ExpressionParser::compare() {
  static constexpr std::string_view comparisons[] = {"==", "!=", "<", "<=", ">", ">="};
  std::vector<ExprPointer> operands = single(sum());
  std::vector<std::string> operators;
  while (true) {
    if (current().kind == TokenKind::op &&
        std::find(std::begin(comparisons), std::end(comparisons), current().text) != std::end(comparisons)) {
      operators.push_back(advance().text);
    } else if (take_name("in")) {
      operators.emplace_back("in");
    } else if (is_name("not") && next().kind == TokenKind::name && next().text == "in") {
      advance();
      advance();
      operators.emplace_back("not in");
    } else {
      break;
    }
    operands.push_back(sum());
  }
  if (operators.empty()) return std::move(operands[0]);
  ExprPointer expr = make(ExprKind::compare, std::move(operands));
  expr->operators = std::move(operators);
  return expr;
}

ExprPointer ExpressionParser::sum() {
  ExprPointer left = concat();
  while (is_op("+") || is_op("-")) {
    std::string op = advance().text;
    left = make(ExprKind::binary, pair(std::move(left), concat()), std::move(op));
  }
  return left;
}

ExprPointer ExpressionParser::concat() {
  ExprPointer first = product();
  if (!is_op("~")) return first;
  auto operands = single(std::move(first));
  while (take_op("~")) operands.push_back(product());
  return make(ExprKind::concat, std::move(operands));
}

ExprPointer ExpressionParser::product() {
  ExprPointer left = power();
  while (is_op("*") || is_op("/") || is_op("//") || is_op("%")) {
    std::string op = advance().text;
    left = make(ExprKind::binary, pair(std::move(left), power()), std::move(op));
  }
  return left;
}

ExprPointer ExpressionParser::power() {
  ExprPointer left = unary();
  while (take_op("**")) left = make(ExprKind::binary, pair(std::move(left), unary()), "**");
  return left;
}

ExprPointer ExpressionParser::unary(bool with_filters) {
  ExprPointer value;
  if (is_op("-") || is_op("+")) {
    if (++open_ > kMaxOpen) fail("expressions are nested more than {} deep", kMaxOpen);
    const ExprKind kind = advance().text == "-" ? ExprKind::negate : ExprKind::plus;
    value = make(kind, single(unary(false)));
    open_--;
  } else {
    value = postfix(primary());
  }
  return with_filters ? filters_and_tests(std::move(value)) : std::move(value);
}

ExprPointer ExpressionParser::primary() {
  const Token token = current();
  ExprPointer expr = make(ExprKind::literal);
  switch (token.kind) {
    case TokenKind::name:
      advance();
      if (token.text == "true" || token.text == "True") {
        expr->literal = true;
      } else if (token.text == "false" || token.text == "False") {
        expr->literal = false;
      } else if (token.text == "none" || token.text == "None") {
        expr->literal = None{};
      } else {
        expr->kind = ExprKind::name;
        expr->name = token.text;
        special_names_.caller += token.text == "caller" ? 1 : 0;
        special_names_.varargs += token.text == "varargs" ? 1 : 0;
        special_names_.kwargs += token.text == "kwargs" ? 1 : 0;
      }
      return expr;
    case TokenKind::string: {
      std::string text;
      while (current().kind == TokenKind::string) text += advance().text;  // neighbours are one string
      expr->literal = std::move(text);
      return expr;
    }
    case TokenKind::integer: {
      int64_t number = 0;
      const char mark = token.text.size() > 2 ? static_cast<char>(token.text[1] | 0x20) : '0';
      const int base = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 10;
      const auto result = std::from_chars(token.text.data() + (base == 10 ? 0 : 2),
                                          token.text.data() + token.text.size(), number, base);
      if (result.ec != std::errc()) fail("the number {} does not fit 64 bits", token.text);
      advance();
      expr->literal = number;
      return expr;
    }
    case TokenKind::floating: {
      double number = 0;
      std::from_chars(token.text.data(), token.text.data() + token.text.size(), number);
      advance();
      expr->literal = number;
      return expr;
    }
    default: break;
  }
  if (take_op("(")) {
    expr = tuple();
    expect_op(")");
    return expr;
  }
  if (take_op("[")) {
    std::vector<ExprPointer> items;
    while (!is_op("]")) {
      items.push_back(expression());
      if (!take_op(",")) break;
    }
    expect_op("]");
    return make(ExprKind::list, std::move(items));
  }
  if (take_op("{")) {
    std::vector<ExprPointer> items;
    while (!is_op("}")) {
      items.push_back(expression());
      expect_op(":");
      items.push_back(expression());
      if (!take_op(",")) break;
    }
    expect_op("}");
    return make(ExprKind::dict, std::move(items));
  }
  fail_at_token("an expression");
}

ExprPointer ExpressionParser::postfix(ExprPointer value) {
  while (true) {
    if (take_op(".")) {
      if (current().kind == TokenKind::integer) {
        value = make(ExprKind::subscript, pair(std::move(value), primary()));
      } else {
        std::string name = expect_identifier("the name of an attribute");
        value = make(ExprKind::attribute, single(std::move(value)), std::move(name));
      }
    } else if (take_op("[")) {
      value = subscript(std::move(value));
    } else if (take_op("(")) {
      value = call(std::move(value));
    } else {
      return value;
    }
  }
}

ExprPointer ExpressionParser::call(ExprPointer function) {
  ExprPointer value = make(ExprKind::call, single(std::move(function)));
  arguments(*value);
  return finish(std::move(value));
}

ExprPointer ExpressionParser::subscript(ExprPointer value) {
  ExprPointer index;
  if (!is_op(":")) index = expression();
  if (is_op(",") && index != nullptr) {  // a tuple as the key
    auto items = single(std::move(index));
    while (take_op(",")) items.push_back(expression());
    index = make(ExprKind::tuple, std::move(items));
  }
  if (!is_op(":")) {
    expect_op("]");
    return make(ExprKind::subscript, pair(std::move(value), std::move(index)));
  }
  auto operands = pair(std::move(value), std::move(index));
  operands.resize(4);
  for (int i = 2; i < 4 && take_op(":"); i++)
    if (!is_op("]") && !is_op(":")) operands[i] = expression();
  expect_op("]");
  return make(ExprKind::slice, std::move(operands));
}

void ExpressionParser::arguments(Expr& call) {
  while (!is_op(")")) {
    if (take_op("*")) {
      if (call.rest != nullptr || call.named_rest != nullptr) fail("'*' twice, or behind '**', in a call");
      call.rest = expression();
    } else if (take_op("**")) {
      if (call.named_rest != nullptr) fail("'**' twice in a call");
      call.named_rest = expression();
    } else if (current().kind == TokenKind::name && next().kind == TokenKind::op && next().text == "=") {
      if (call.named_rest != nullptr) fail("an argument follows '**'");
      std::string name = advance().text;
      advance();
      call.keywords.emplace_back(std::move(name), expression());
    } else {
      if (!call.keywords.empty() || call.rest != nullptr || call.named_rest != nullptr)
        fail("an argument without a name follows one with a name");
      call.operands.push_back(expression());
    }
    if (!take_op(",")) break;
  }
  expect_op(")");
}

std::string ExpressionParser::dotted_name(std::string_view what) {
  std::string name = expect_identifier(what);
  while (take_op(".")) name += "." + expect_identifier(what);
  return name;
}

ExprPointer ExpressionParser::filters(ExprPointer value, bool is_block) {
  for (bool is_first = is_block; is_first || is_op("|"); is_first = false) {
    if (!is_first) advance();
    value = make(ExprKind::filter, single(std::move(value)), dotted_name("the name of a filter"));
    if (!is_soft_ && !has_filter(value->name) && value->name != "random") fail("unknown filter '{}'", value->name);
    if (take_op("(")) {
      arguments(*value);
      value = finish(std::move(value));
    }
  }
  return value;
}

ExprPointer ExpressionParser::filters_and_tests(ExprPointer value) {
  while (true) {
    if (is_op("|")) {
      value = filters(std::move(value), false);
    } else if (take_name("is")) {
      value = test(std::move(value));
    } else if (take_op("(")) {
      value = call(std::move(value));
    } else {
      return value;
    }
  }
}

ExprPointer ExpressionParser::test(ExprPointer value) {
  const bool is_negated = take_name("not");
  ExprPointer expr = make(ExprKind::test, single(std::move(value)), dotted_name("the name of a test"));
  if (!is_soft_ && !has_test(expr->name)) fail("unknown test '{}'", expr->name);
  const TokenKind kind = current().kind;
  static constexpr std::string_view not_arguments[] = {"else", "or", "and", "is"};
  const bool is_operator_name = kind == TokenKind::name && std::find(std::begin(not_arguments), std::end(not_arguments),
                                                                     current().text) != std::end(not_arguments);
  if (take_op("(")) {
    arguments(*expr);
  } else if (is_name("is")) {
    fail("tests cannot follow each other; put the first in brackets");
  } else if ((kind == TokenKind::name && !is_operator_name) || kind == TokenKind::string ||
             kind == TokenKind::integer || kind == TokenKind::floating || is_op("[") || is_op("{")) {
    expr->operands.push_back(postfix(primary()));
  }
  expr = finish(std::move(expr));
  return is_negated ? make(ExprKind::logical_not, single(std::move(expr))) : std::move(expr);
}

}  // namespace nibble::jinja
