// Views of a tensor as functions of indices, in a normal form: equal functions have equal layouts.
//
// The elements of a tensor are numbered in order (the last dimension fastest). A layout says for
// each dimension of a view how its index adds to that number: a dimension is a list of atoms, major
// first, as `[4:8, 2:1]` for an index of 8 whose upper part steps by 8 and whose lower part steps
// by 1. What a sum went over is kept in the same way, so that sums and views in any order compare
// as equal.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"

namespace autosp::checker {

struct Atom {
  int64_t size = 1;
  int64_t stride = 0;
  friend bool operator==(const Atom&, const Atom&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const Atom& atom) {
    return H::combine(std::move(h), atom.size, atom.stride);
  }
};
// Coalesced: no size 1, no two that one could stand for.
using AtomList = absl::InlinedVector<Atom, 1>;
using Shape = std::vector<int64_t>;

struct IndexLayout {
  int64_t offset = 0;
  std::vector<AtomList> dims;
  AtomList reduced;  // largest stride first
  friend bool operator==(const IndexLayout&, const IndexLayout&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const IndexLayout& layout) {
    return H::combine(std::move(h), layout.offset, layout.dims, layout.reduced);
  }
};

int64_t NumElements(const Shape& shape);
int64_t SizeOf(const AtomList& atoms);
// The one layout of a list of atoms: adjacent ones that count on from each other are one.
AtomList Coalesced(const AtomList& atoms);

IndexLayout RowMajor(const Shape& shape);
// Every index of a tensor of `shape` means element 0.
IndexLayout Constant(const Shape& shape);

// The layout without the atoms of stride 0 of all dimensions but `kept`, which repeat elements.
IndexLayout WithoutRepeats(const IndexLayout& layout, int64_t kept);
// The row-major layout of a tensor of the sizes that `like` has without its repeats, but for
// `kept`, which is of size `size`; and with the repeats of `like`.
IndexLayout RepeatedAs(const IndexLayout& like, int64_t kept, int64_t size);

// Each returns false where no layout can say it; then the layout is as before.
bool Reshape(const Shape& to, IndexLayout* layout);
bool Slice(int64_t dim, int64_t start, int64_t size, int64_t step, IndexLayout* layout);

void Permute(const std::vector<int64_t>& order, IndexLayout* layout);
// Stretches dimensions of size 1 and adds dimensions in front.
void Expand(const Shape& to, IndexLayout* layout);
void RemoveDim(int64_t dim, IndexLayout* layout);  // Requires: its size is 1.
// Sums over `dim`, which goes. Returns how often each element counts: atoms of stride 0 repeat it.
int64_t SumOver(int64_t dim, IndexLayout* layout);

}  // namespace autosp::checker
