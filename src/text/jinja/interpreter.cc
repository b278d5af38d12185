#include "text/jinja/interpreter.h"

#include <algorithm>

#include "text/jinja/builtins.h"
#include "text/jinja/format.h"
#include "text/jinja/operations.h"

namespace nibble::jinja {

// A macro, or the body of a call block. It sees the names of the place where it is defined.
struct Macro : Object {
  const Statement* statement;
  std::weak_ptr<Scope> scope;  // weak, because the scope holds the macro

  bool is_caller() const { return statement->kind == StatementKind::call_block; }
  Value name() const { return is_caller() ? Value(None{}) : Value(statement->text); }
  std::string_view type() const override { return "Macro"; }
  std::string shown() const override {
    return is_caller() ? "<Macro anonymous>" : fmt::format("<Macro '{}'>", statement->text);
  }
  bool is_callable() const override { return true; }

  Value attribute(std::string_view attribute) const override {
    if (attribute == "name") return name();
    if (attribute == "catch_varargs") return statement->takes_varargs;
    if (attribute == "catch_kwargs") return statement->takes_kwargs;
    if (attribute == "caller") return statement->takes_caller;
    if (attribute != "arguments") return {};
    std::vector<Value> names;
    for (const Parameter& parameter : statement->parameters) names.emplace_back(parameter.name);
    return {std::move(names), SequenceKind::tuple};
  }

  Value call(Interpreter& interpreter, const Arguments& arguments) override {
    const auto inner = std::make_shared<Scope>();
    inner->outer = scope.lock();
    if (inner->outer == nullptr) fail("the macro '{}' is called outside of the block that defines it", statement->text);
    const auto& parameters = statement->parameters;
    auto& names = inner->names;
    if (statement->takes_caller)
      names["caller"] = undefined("'caller' is undefined: the macro was not called by a call block");
    std::vector<Value> rest;
    for (size_t i = 0; i < arguments.positional.size(); i++) {
      if (i < parameters.size()) {
        names[parameters[i].name] = arguments.positional[i];
      } else if (statement->takes_varargs) {
        rest.push_back(arguments.positional[i]);
      } else {
        fail("the macro '{}' takes {} arguments, not {}", statement->text, parameters.size(),
             arguments.positional.size());
      }
    }
    Dict named_rest;
    for (const auto& [key, value] : arguments.named) {
      const size_t at =
          std::find_if(parameters.begin(), parameters.end(),
                       [&name_given = key](const Parameter& parameter) { return parameter.name == name_given; }) -
          parameters.begin();
      const bool is_free = at < parameters.size() && at >= arguments.positional.size();
      if (is_free || (key == "caller" && at == parameters.size() && statement->takes_caller)) {
        names[key] = value;
      } else if (statement->takes_kwargs) {
        named_rest.set(key, value);
      } else {
        fail("the macro '{}' takes no argument called '{}'", statement->text, key);
      }
    }
    if (statement->takes_varargs) names["varargs"] = Value(std::move(rest), SequenceKind::tuple);
    if (statement->takes_kwargs) names["kwargs"] = std::move(named_rest);
    for (size_t i = arguments.positional.size(); i < parameters.size(); i++) {
      const Parameter& parameter = parameters[i];
      const bool is_given = std::any_of(arguments.named.begin(), arguments.named.end(),
                                        [&](const auto& entry) { return entry.first == parameter.name; });
      if (is_given) continue;
      names[parameter.name] = parameter.fallback != nullptr
                                  ? interpreter.evaluate(*parameter.fallback, inner)
                                  : undefined(fmt::format("parameter '{}' was not given", parameter.name));
    }
    std::string out;
    interpreter.execute(statement->body, inner, out);
    return out;
  }
};

// The variable `loop` inside a loop. Calling it runs a recursive loop again over another sequence.
struct Loop : Object, std::enable_shared_from_this<Loop> {
  const Statement* statement;
  std::vector<Value> items;
  size_t index = 0;
  int depth = 1;
  bool has_ended = false;
  Value changed_before;  // until the loop ends: it may hold the loop itself
  std::weak_ptr<Scope> scope;

  std::string_view type() const override { return "LoopContext"; }
  bool is_callable() const override { return statement->is_recursive; }

  Value attribute(std::string_view name) const override {
    if (name == "index") return index + 1;
    if (name == "index0") return index;
    if (name == "revindex") return items.size() - index;
    if (name == "revindex0") return items.size() - index - 1;
    if (name == "first") return index == 0;
    if (name == "last") return index + 1 == items.size();
    if (name == "length") return items.size();
    if (name == "depth") return depth;
    if (name == "depth0") return depth - 1;
    if (name == "previtem") return index > 0 ? items[index - 1] : undefined("there is no previous item");
    if (name == "nextitem") return index + 1 < items.size() ? items[index + 1] : undefined("there is no next item");
    if (name == "cycle") {
      return make_function("cycle", [at = index](Interpreter&, const Arguments& arguments) {
        if (arguments.positional.empty()) fail("cycle: no items given");
        return arguments.positional[at % arguments.positional.size()];
      });
    }
    if (name == "changed") {
      const auto loop = std::const_pointer_cast<Loop>(shared_from_this());
      // Weak, because what it remembers may hold this function.
      return make_function("changed", [weak = std::weak_ptr(loop)](Interpreter& interpreter, const Arguments& given) {
        const auto self = weak.lock();
        if (self == nullptr || self->has_ended) fail("loop.changed is called after the end of its loop");
        Value now(given.positional, SequenceKind::tuple);
        const bool is_same = are_equal(now, self->changed_before, interpreter.budget());
        self->changed_before = std::move(now);
        return Value(!is_same);
      });
    }
    return {};
  }

  Value call(Interpreter& interpreter, const Arguments& arguments) override {
    if (!statement->is_recursive) fail("this loop is not recursive; write 'recursive' at the end of its tag");
    const auto outer = scope.lock();
    if (outer == nullptr) fail("a loop is called after its end");
    std::string out;
    interpreter.execute_for(*statement, arguments.bind("loop", {"iterable"})[0], depth + 1, outer, out);
    return out;
  }
};

std::string Interpreter::render(const Block& block, const Dict& variables) {
  const auto root = std::make_shared<Scope>();
  for (const auto& [key, value] : variables.items) root->names[to_text(key, budget_)] = value;
  struct Clear {  // whatever happens, no namespace may keep itself alive
    std::vector<std::shared_ptr<Namespace>>& namespaces;
    ~Clear() {
      for (const auto& space : namespaces) space->values = Dict();
    }
  } clear{namespaces_};
  std::string out;
  execute(block, root, out);
  return out;
}

std::shared_ptr<Namespace> Interpreter::make_namespace() {
  namespaces_.push_back(std::make_shared<Namespace>());
  return namespaces_.back();
}

Value Interpreter::call(const Value& callee, const Arguments& arguments) {
  if (callee.is_undefined()) fail_undefined(callee);
  if (!callee.is_object() || !callee.object().is_callable()) fail("a {} cannot be called", type_name(callee));
  const int line = line_;
  Value result = callee.object().call(*this, arguments);
  line_ = line;
  return result;
}

void Interpreter::print(std::string_view text, std::string& out) {
  budget_.charge_text(text.size());
  if (out.size() + text.size() > kMaxText) fail("the rendered text grows beyond {} bytes", kMaxText);
  out += text;
}

Interpreter::Flow Interpreter::execute(const Block& block, const ScopePointer& scope, std::string& out) {
  for (const auto& statement : block) {
    const Flow flow = execute(*statement, scope, out);
    if (flow != Flow::next) return flow;
  }
  return Flow::next;
}

Interpreter::Flow Interpreter::execute(const Statement& statement, const ScopePointer& scope, std::string& out) {
  const Level level(level_);
  budget_.charge(1);
  line_ = statement.line;
  switch (statement.kind) {
    case StatementKind::text: print(statement.text, out); break;
    case StatementKind::output: print(to_text(evaluate(*statement.expr, scope), budget_), out); break;
    case StatementKind::if_: return execute_if(statement, scope, out);
    case StatementKind::for_: return execute_for(statement, evaluate(*statement.expr, scope), 1, scope, out);
    case StatementKind::set: assign(statement.target, evaluate(*statement.expr, scope), *scope); break;
    case StatementKind::set_block: {
      Value value;
      const Flow flow = filtered_block(statement, scope, value);
      if (flow != Flow::next) return flow;  // what was rendered so far is lost
      assign(statement.target, value, *scope);
      break;
    }
    case StatementKind::macro: {
      const auto macro = std::make_shared<Macro>();
      macro->statement = &statement;
      macro->scope = scope;
      scope->names[statement.text] = Value(ObjectPointer(macro));
      break;
    }
    case StatementKind::call_block: execute_call(statement, scope, out); break;
    case StatementKind::filter_block: {
      Value value;
      const Flow flow = filtered_block(statement, scope, value);
      if (flow != Flow::next) return flow;
      if (!value.is_text()) fail("a filter block gives a {}, a string expected", type_name(value));
      print(value.text(), out);
      break;
    }
    case StatementKind::with: {
      const auto inner = std::make_shared<Scope>();
      inner->outer = scope;
      for (const auto& [target, expr] : statement.assignments) assign(target, evaluate(*expr, scope), *inner);
      return execute(statement.body, inner, out);
    }
    case StatementKind::scope: {
      const auto inner = std::make_shared<Scope>();
      inner->outer = scope;
      return execute(statement.body, inner, out);
    }
    case StatementKind::break_: return Flow::break_loop;
    case StatementKind::continue_: return Flow::continue_loop;
  }
  return Flow::next;
}

Interpreter::Flow Interpreter::execute_if(const Statement& statement, const ScopePointer& scope, std::string& out) {
  for (const Branch& branch : statement.branches)
    if (is_true(evaluate(*branch.condition, scope))) return execute(branch.body, scope, out);
  return execute(statement.else_body, scope, out);
}

Interpreter::Flow Interpreter::execute_for(const Statement& statement, const Value& sequence, int depth,
                                           const ScopePointer& scope, std::string& out) {
  const Level level(level_);
  const auto loop = std::make_shared<Loop>();
  loop->statement = &statement;
  loop->depth = depth;
  loop->scope = scope;
  loop->items = iterate(sequence, budget_);
  const auto scope_of = [&](const Value& item) {
    auto inner = std::make_shared<Scope>();
    inner->outer = scope;
    assign(statement.target, item, *inner);
    return inner;
  };
  if (statement.condition != nullptr) {
    std::vector<Value> chosen;
    for (const Value& item : loop->items)
      if (is_true(evaluate(*statement.condition, scope_of(item)))) chosen.push_back(item);
    loop->items = std::move(chosen);
  }
  loop->nesting = nesting_around(loop->items);
  if (loop->items.empty()) {
    const auto inner = std::make_shared<Scope>();
    inner->outer = scope;
    return execute(statement.else_body, inner, out);
  }
  struct End {  // however it comes
    Loop& loop;
    ~End() {
      loop.has_ended = true;
      loop.changed_before = Value();
    }
  } end{*loop};
  const Value loop_value{ObjectPointer(loop)};
  for (; loop->index < loop->items.size(); loop->index++) {
    budget_.charge(4);  // it makes a scope
    const auto inner = scope_of(loop->items[loop->index]);
    inner->names.emplace("loop", loop_value);
    if (execute(statement.body, inner, out) == Flow::break_loop) break;
  }
  return Flow::next;
}

void Interpreter::execute_call(const Statement& statement, const ScopePointer& scope, std::string& out) {
  const auto caller = std::make_shared<Macro>();
  caller->statement = &statement;
  caller->scope = scope;
  Arguments arguments = arguments_of(*statement.expr, scope);
  arguments.named.emplace_back("caller", Value(ObjectPointer(caller)));
  print(to_text(call(evaluate(*statement.expr->operands[0], scope), arguments), budget_), out);
}

Interpreter::Flow Interpreter::filtered_block(const Statement& statement, const ScopePointer& scope, Value& value) {
  const auto body = std::make_shared<Scope>();
  body->outer = scope;
  std::string text;
  const Flow flow = execute(statement.body, body, text);
  if (flow != Flow::next) return flow;
  const auto inner = std::make_shared<Scope>();
  inner->outer = scope;
  inner->names.emplace(kBlockText, std::move(text));
  value = evaluate(*statement.expr, inner);
  return Flow::next;
}

void Interpreter::assign(const Target& target, const Value& value, Scope& scope) {
  if (!target.targets.empty()) {
    const auto items = iterate(value, budget_);
    if (items.size() != target.targets.size()) {
      fail("{} names, but {} values to unpack", target.targets.size(), items.size());
    }
    for (size_t i = 0; i < items.size(); i++) assign(target.targets[i], items[i], scope);
    return;
  }
  if (target.attribute.empty()) {
    scope.names.insert_or_assign(target.name, value);
    return;
  }
  const Value object = look_up(target.name, scope);
  auto* space = object.is_object() ? dynamic_cast<Namespace*>(&object.object()) : nullptr;
  if (space == nullptr) {
    fail("'{}.{}' cannot be set: '{}' is {}, a namespace expected", target.name, target.attribute, target.name,
         type_name(object));
  }
  check_namespace_name(target.attribute);
  space->values.set(target.attribute, value);
}

}  // namespace nibble::jinja
