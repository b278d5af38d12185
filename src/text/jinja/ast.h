// A parsed template: a tree of statements and expressions.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja/value.h"

namespace nibble::jinja {

enum class ExprKind {
  literal,      // literal
  name,         // name
  list,         // operands
  tuple,        // operands
  dict,         // operands: key, value, key, value, …
  negate,       // operands[0]
  plus,         // operands[0], a number
  logical_not,  // operands[0]
  logical_and,  // operands[0], operands[1]
  logical_or,   // operands[0], operands[1]
  binary,       // name: + - * / // % **; two operands
  concat,       // operands, any number
  compare,      // operands[0] operators[0] operands[1] operators[1] operands[2] …
  conditional,  // operands: value, condition, and the other value if there is one
  attribute,    // operands[0].name
  subscript,    // operands[0][operands[1]]
  slice,        // operands[0][operands[1]:operands[2]:operands[3]], nullptr where nothing stands
  call,         // operands[0](the other operands, keywords)
  filter,       // operands[0] | name(the other operands, keywords)
  test,         // operands[0] is name(the other operands)
};

struct Expr;
using ExprPointer = std::unique_ptr<Expr>;

struct Expr {
  ExprKind kind;
  int line;
  int depth = 1;  // of the tree below it
  std::string name;
  Value literal;
  std::vector<ExprPointer> operands;
  std::vector<std::string> operators;
  std::vector<std::pair<std::string, ExprPointer>> keywords;
  ExprPointer rest, named_rest;  // of a call: the arguments behind * and **
};

enum class StatementKind {
  text,          // text
  output,        // expr
  if_,           // branches; body is the else part
  for_,          // targets, expr, condition, body, else_body
  set,           // targets = expr
  set_block,     // targets[0] = body, through the filters of expr
  macro,         // text is its name; parameters, body
  call_block,    // expr is the call; parameters, body
  filter_block,  // body, through the filters of expr
  with,          // assignments, body
  scope,         // body, in a scope of its own
  break_,
  continue_,
};

struct Statement;
using Block = std::vector<std::unique_ptr<Statement>>;

// What can be assigned to: a name, an attribute of a namespace, or several of them at once.
struct Target {
  std::string name;
  std::string attribute;        // empty: the name itself
  std::vector<Target> targets;  // not empty: unpacks into them
};

struct Parameter {
  std::string name;
  ExprPointer fallback;  // nullptr: undefined
};

struct Branch {
  ExprPointer condition;
  Block body;
};

struct Statement {
  StatementKind kind;
  int line;
  std::string text;
  ExprPointer expr, condition;
  Target target;
  std::vector<Parameter> parameters;
  bool takes_caller = false, takes_varargs = false, takes_kwargs = false;  // a macro whose body names them
  std::vector<std::pair<Target, ExprPointer>> assignments;
  std::vector<Branch> branches;
  Block body, else_body;
  bool is_recursive = false;
};

// In the filters of a block, the place that the block's text takes.
inline constexpr const char* kBlockText = "";

}  // namespace nibble::jinja
