#include "text/jinja/lexer.h"

#include <algorithm>
#include <cstdint>

#include "text/jinja/case.h"
#include "text/jinja/strings.h"
#include "text/jinja/value.h"
#include "text/utf8.h"

namespace nibble::jinja {

namespace {

constexpr size_t npos = std::string::npos;

bool begins_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || static_cast<uint8_t>(c) >= 0x80;
}

class Lexer {
 public:
  Lexer(std::string_view source, int& line) : line_(line) {
    line_ = 1;
    for (size_t i = 0; i < source.size(); i++) {  // \r\n and \r are line ends, too
      if (source[i] != '\r') {
        source_ += source[i];
      } else if (i + 1 >= source.size() || source[i + 1] != '\n') {
        source_ += '\n';
      }
    }
    if (source_.ends_with('\n')) source_.pop_back();
  }

  std::vector<Token> run() {
    while (at_ < source_.size()) {
      size_t open = at_;
      const auto opens = [&](size_t i) {
        return source_[i + 1] == '%' || source_[i + 1] == '{' || source_[i + 1] == '#';
      };
      while ((open = source_.find('{', open)) != npos && (open + 1 >= source_.size() || !opens(open))) open++;
      if (open == npos) {
        add_text(source_.size(), '+', 0);
        break;
      }
      const char kind = source_[open + 1];
      size_t inside = open + 2;
      const char sign =
          inside < source_.size() && (source_[inside] == '-' || source_[inside] == '+') ? source_[inside++] : 0;
      add_text(open, sign, kind);
      move_to(inside);
      if (kind == '#') {
        comment();
      } else if (kind == '{') {
        add(TokenKind::variable_begin, "{{");
        inside_tag("}}", TokenKind::variable_end);
      } else if (!raw()) {
        add(TokenKind::block_begin, "{%");
        inside_tag("%}", TokenKind::block_end);
      }
    }
    add(TokenKind::end, "");
    return std::move(tokens_);
  }

 private:
  void add(TokenKind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }

  void move_to(size_t to) {
    line_ += static_cast<int>(std::count(source_.begin() + at_, source_.begin() + to, '\n'));
    at_ = to;
  }

  // The text up to `end`, where a tag of this kind with this sign begins (kind 0: none).
  void add_text(size_t end, char sign, char kind) {
    std::string_view text = std::string_view(source_).substr(at_, end - at_);
    if (sign == '-') {
      text = strip_right(text);
    } else if (sign != '+' && kind != '{') {
      const size_t line_begin = text.rfind('\n') + 1;  // 0 if there is none
      if ((line_begin > 0 || line_starts_) && strip_right(text.substr(line_begin)).empty())
        text = text.substr(0, line_begin);
    }
    if (!text.empty()) add(TokenKind::text, std::string(text));
    move_to(end);
  }

  // Steps over the end of a tag, which is `length` bytes long and has this sign before it, and the white space that it
  // takes with it.
  void close(size_t length, char sign, bool trims_line_end) {
    size_t to = at_ + length;
    if (sign == '-') {
      to = source_.size() - strip_left(std::string_view(source_).substr(to)).size();
    } else if (sign != '+' && trims_line_end && to < source_.size() && source_[to] == '\n') {
      to++;
    }
    line_starts_ = source_[to - 1] == '\n';
    move_to(to);
  }

  char sign_before(size_t close) const {
    return close > at_ && (source_[close - 1] == '-' || source_[close - 1] == '+') ? source_[close - 1] : 0;
  }

  void comment() {
    const size_t end = source_.find("#}", at_);
    if (end == npos) fail("a comment is not closed; #}} expected");
    const char sign = sign_before(end);
    move_to(end);
    close(2, sign, true);
  }

  size_t skip_space(size_t at) const {
    return source_.size() - strip_left(std::string_view(source_).substr(at)).size();
  }

  // {% raw %} … {% endraw %}, if it begins here.
  bool raw() {
    const auto keyword_end = [&](size_t at, std::string_view keyword, char& sign) {  // behind "keyword", before %}
      at = skip_space(at);
      if (source_.compare(at, keyword.size(), keyword) != 0) return npos;
      at = skip_space(at + keyword.size());
      sign = at < source_.size() && (source_[at] == '-' || source_[at] == '+') ? source_[at] : 0;
      if (sign != 0) at++;
      return source_.compare(at, 2, "%}") == 0 ? at : npos;
    };
    char sign = 0;
    const size_t begin = keyword_end(at_, "raw", sign);
    if (begin == npos || sign == '+') return false;
    move_to(begin);
    close(2, sign, false);
    for (size_t open = at_; (open = source_.find("{%", open)) != npos; open += 2) {
      size_t inside = open + 2;
      const char left_sign =
          inside < source_.size() && (source_[inside] == '-' || source_[inside] == '+') ? source_[inside++] : 0;
      const size_t end = keyword_end(inside, "endraw", sign);
      if (end == npos) continue;
      add_text(open, left_sign, '%');
      move_to(end);
      close(2, sign, true);
      return true;
    }
    fail("raw is not closed; {{% endraw %}} expected");
  }

  void inside_tag(std::string_view closing, TokenKind end_kind) {
    const int opened_on = line_;
    std::string brackets;  // that are open; the tag cannot end inside them
    while (true) {
      move_to(skip_space(at_));
      if (at_ >= source_.size()) {
        line_ = opened_on;
        fail("a tag is not closed; {} expected", closing);
      }
      if (brackets.empty()) {
        const char c = source_[at_];
        const bool has_sign = (c == '-' || (c == '+' && closing == "%}")) && source_.compare(at_ + 1, 2, closing) == 0;
        if (has_sign || source_.compare(at_, 2, closing) == 0) {
          add(end_kind, std::string(closing));
          close(has_sign ? 3 : 2, has_sign ? c : 0, closing == "%}");
          return;
        }
      }
      const char c = source_[at_];
      if (begins_name(c)) {
        name();
      } else if (is_ascii_digit(c)) {
        number();
      } else if (c == '\'' || c == '"') {
        string(c);
      } else {
        op(brackets);
      }
    }
  }

  // The end of a run of digits with single underscores between them; `at` itself if there is no digit.
  template <class IsDigit>
  size_t digits_end(size_t at, IsDigit is_digit_of_base) const {
    const auto digit_at = [&](size_t i) { return i < source_.size() && is_digit_of_base(source_[i]); };
    while (digit_at(at) ||
           (at < source_.size() && source_[at] == '_' && at > 0 && digit_at(at - 1) && digit_at(at + 1)))
      at++;
    return at;
  }

  // 1_000, 0x1f, 0o17, 0b101: the whole part of a number, or an integer. A 0 is followed by zeros only.
  void number() {
    const bool after_dot = at_ > 0 && source_[at_ - 1] == '.';  // items.0.1: two integers
    const auto lower_at = [&](size_t i) { return i < source_.size() ? static_cast<char>(source_[i] | 0x20) : '\0'; };
    size_t end = digits_end(at_, is_ascii_digit);
    TokenKind kind = TokenKind::integer;
    const size_t fraction_end = end < source_.size() && source_[end] == '.' ? digits_end(end + 1, is_ascii_digit) : end;
    size_t float_end = fraction_end > end + 1 ? fraction_end : end;
    if (lower_at(float_end) == 'e') {
      const size_t sign =
          float_end + 1 < source_.size() && (source_[float_end + 1] == '-' || source_[float_end + 1] == '+');
      const size_t power_end = digits_end(float_end + 1 + sign, is_ascii_digit);
      if (power_end > float_end + 1 + sign) float_end = power_end;
    }
    if (!after_dot && float_end > end) {
      kind = TokenKind::floating;
      end = float_end;
    } else if (source_[at_] == '0') {
      const char base = lower_at(at_ + 1);
      const size_t first = at_ + 2 < source_.size() && source_[at_ + 2] == '_' ? at_ + 3 : at_ + 2;
      const auto is_of_base = [base](char c) {
        const char lower = static_cast<char>(c | 0x20);
        return base == 'b'   ? c == '0' || c == '1'
               : base == 'o' ? c >= '0' && c <= '7'
                             : is_ascii_digit(c) || (lower >= 'a' && lower <= 'f');
      };
      const size_t based = base == 'b' || base == 'o' || base == 'x' ? digits_end(first, is_of_base) : first;
      end = based > first ? based : digits_end(at_, [](char c) { return c == '0'; });
    }
    std::string digits = source_.substr(at_, end - at_);
    std::erase(digits, '_');
    add(kind, digits);
    move_to(end);
  }

  void string(char quote) {
    size_t end = at_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) fail("a string is not closed; {} expected", quote);
    add(TokenKind::string, unescape(std::string_view(source_).substr(at_ + 1, end - at_ - 1)));
    move_to(end + 1);
  }

  // A name may have letters of any alphabet.
  void name() {
    size_t end = at_;
    bool is_first = true;
    while (end < source_.size()) {
      const Utf8Step step = read_utf8(source_, end);
      if (!is_word_character(step.code_point)) break;
      if (!(is_first ? step.code_point == '_' || is_letter(step.code_point) : true)) break;
      is_first = false;
      end += step.num_bytes;
    }
    if (end == at_) fail("unexpected character '{}' in a tag", source_.substr(at_, read_utf8(source_, at_).num_bytes));
    add(TokenKind::name, source_.substr(at_, end - at_));
    move_to(end);
  }

  void op(std::string& brackets) {
    static constexpr std::string_view pairs[] = {"//", "**", "==", "!=", ">=", "<="};
    for (const std::string_view pair : pairs) {
      if (source_.compare(at_, 2, pair) != 0) continue;
      add(TokenKind::op, std::string(pair));
      move_to(at_ + 2);
      return;
    }
    const char c = source_[at_];
    if (std::string_view("+-/*%~[](){}><=.:|,;").find(c) == npos) fail("unexpected character '{}' in a tag", c);
    if (c == '(') brackets += ')';
    if (c == '[') brackets += ']';
    if (c == '{') brackets += '}';
    if (c == ')' || c == ']' || c == '}') {
      if (brackets.empty() || brackets.back() != c) fail("unexpected '{}'", c);
      brackets.pop_back();
    }
    add(TokenKind::op, std::string(1, c));
    move_to(at_ + 1);
  }

  std::string source_;
  size_t at_ = 0;
  int& line_;
  bool line_starts_ = true;  // whether the tag before ended with a line end that it took away
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source, int& line) { return Lexer(source, line).run(); }

}  // namespace nibble::jinja
