// The expressions of the interpreter.
#include "text/jinja/builtins.h"
#include "text/jinja/format.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/operations.h"

namespace nibble::jinja {

Value Interpreter::look_up(const std::string& name, const Scope& scope) const {
  for (const Scope* at = &scope; at != nullptr; at = at->outer.get()) {
    const auto known = at->names.find(name);
    if (known != at->names.end()) return known->second;
  }
  Value global = find_global(name);
  return global.is_undefined() ? undefined(fmt::format("'{}' is undefined", name)) : global;
}

Arguments Interpreter::arguments_of(const Expr& expr, const ScopePointer& scope) {
  Arguments arguments;
  for (size_t i = 1; i < expr.operands.size(); i++) arguments.positional.push_back(evaluate(*expr.operands[i], scope));
  for (const auto& [name, value] : expr.keywords) arguments.named.emplace_back(name, evaluate(*value, scope));
  if (expr.rest != nullptr)
    for (Value& item : iterate(evaluate(*expr.rest, scope), budget_)) arguments.positional.push_back(std::move(item));
  if (expr.named_rest != nullptr) {
    const Value rest = evaluate(*expr.named_rest, scope);
    if (!rest.is_dict()) fail("the argument after ** is {}, a dict expected", type_name(rest));
    for (const auto& [name, value] : rest.dict().items) {
      if (!name.is_text()) fail("the argument after ** has a key that is not a string");
      arguments.named.emplace_back(name.text(), value);
    }
  }
  return arguments;
}

Value Interpreter::evaluate(const Expr& expr, const ScopePointer& scope) {
  const Level level(level_);
  budget_.charge(1);
  line_ = expr.line;
  switch (expr.kind) {
    case ExprKind::literal: return expr.literal;
    case ExprKind::name: return look_up(expr.name, *scope);
    case ExprKind::list:
    case ExprKind::tuple:
    case ExprKind::dict: return evaluate_literal(expr, scope);
    case ExprKind::attribute:
    case ExprKind::subscript:
    case ExprKind::slice:
    case ExprKind::call:
    case ExprKind::filter:
    case ExprKind::test: return evaluate_access(expr, scope);
    default: return evaluate_operator(expr, scope);
  }
}

Value Interpreter::evaluate_literal(const Expr& expr, const ScopePointer& scope) {
  if (expr.kind == ExprKind::dict) {
    Dict dict;
    for (size_t i = 0; i < expr.operands.size(); i += 2) {
      const Value key = evaluate(*expr.operands[i], scope);
      dict.set(key, evaluate(*expr.operands[i + 1], scope), budget_);
    }
    return dict;
  }
  std::vector<Value> items;
  items.reserve(expr.operands.size());
  for (const auto& operand : expr.operands) items.push_back(evaluate(*operand, scope));
  return {std::move(items), expr.kind == ExprKind::tuple ? SequenceKind::tuple : SequenceKind::list};
}

Value Interpreter::evaluate_access(const Expr& expr, const ScopePointer& scope) {
  const Value value = evaluate(*expr.operands[0], scope);
  switch (expr.kind) {
    case ExprKind::attribute: return get_attribute(value, expr.name);
    case ExprKind::subscript: return get_item(value, evaluate(*expr.operands[1], scope), budget_);
    case ExprKind::slice: {
      // Jinja computes this while it reads the template, where a mistake is not an error.
      if (expr.operands[0]->kind == ExprKind::literal && !value.is_text())
        return undefined("a literal cannot be sliced");
      Value bounds[3] = {None{}, None{}, None{}};
      for (int i = 0; i < 3; i++)
        if (expr.operands[i + 1] != nullptr) bounds[i] = evaluate(*expr.operands[i + 1], scope);
      return slice(value, bounds[0], bounds[1], bounds[2], budget_);
    }
    case ExprKind::call: return call(value, arguments_of(expr, scope));
    case ExprKind::filter: return apply_filter(*this, expr.name, value, arguments_of(expr, scope));
    default: return apply_test(*this, expr.name, value, arguments_of(expr, scope));
  }
}

Value Interpreter::evaluate_operator(const Expr& expr, const ScopePointer& scope) {
  const auto operand = [&](size_t i) { return evaluate(*expr.operands[i], scope); };
  switch (expr.kind) {
    case ExprKind::negate: return negate(operand(0));
    case ExprKind::plus: return compute("+", 0, operand(0), budget_);
    case ExprKind::logical_not: return !is_true(operand(0));
    case ExprKind::logical_and: {
      Value left = operand(0);
      return is_true(left) ? operand(1) : left;
    }
    case ExprKind::logical_or: {
      Value left = operand(0);
      return is_true(left) ? left : operand(1);
    }
    case ExprKind::binary: {
      const Value left = operand(0);
      return compute(expr.name, left, operand(1), budget_);
    }
    case ExprKind::concat: {
      std::string text;
      for (size_t i = 0; i < expr.operands.size(); i++) print(to_text(operand(i), budget_), text);
      return text;
    }
    case ExprKind::compare: {
      Value left = operand(0);
      for (size_t i = 0; i < expr.operators.size(); i++) {
        Value right = operand(i + 1);
        if (!compare(expr.operators[i], left, right, budget_)) return false;
        left = std::move(right);
      }
      return true;
    }
    default:  // conditional
      if (is_true(operand(1))) return operand(0);
      return expr.operands.size() > 2 ? operand(2) : undefined("the condition is false and there is no else");
  }
}

}  // namespace nibble::jinja
