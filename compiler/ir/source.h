// Where in the user's model a node or an instruction comes from, for messages.
#pragma once

#include <memory>
#include <string>

namespace autosp {

// Immutable; copying shares the text, as all that one node of the model became has one source.
class Source {
 public:
  Source() = default;
  Source(std::string module, std::string location);

  const std::string& module() const { return text().module; }      // "model.layers.3.self_attn"
  const std::string& location() const { return text().location; }  // "modeling_llama.py:240"
  bool empty() const { return text_ == nullptr; }

  // " in model.layers.3.self_attn at modeling_llama.py:240", as far as it is known: every message
  // about a part of the user's model has this.
  std::string Where() const;

  friend bool operator==(const Source& a, const Source& b);

 private:
  struct Text {
    std::string module;
    std::string location;
    friend bool operator==(const Text&, const Text&) = default;
  };
  const Text& text() const;

  std::shared_ptr<const Text> text_;  // null: neither is known
};

}  // namespace autosp
