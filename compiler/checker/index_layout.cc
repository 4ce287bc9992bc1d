#include "compiler/checker/index_layout.h"

#include <algorithm>

namespace autosp::checker {

int64_t NumElements(const Shape& shape) {
  int64_t product = 1;
  for (int64_t size : shape) product *= size;
  return product;
}

int64_t SizeOf(const AtomList& atoms) {
  int64_t product = 1;
  for (const Atom& atom : atoms) product *= atom.size;
  return product;
}

AtomList Coalesced(const AtomList& atoms) {
  AtomList result;
  for (const Atom& atom : atoms) {
    if (atom.size == 1) continue;
    if (!result.empty() && result.back().stride == atom.size * atom.stride) {
      result.back() = {result.back().size * atom.size, atom.stride};
    } else {
      result.push_back(atom);
    }
  }
  return result;
}

IndexLayout RowMajor(const Shape& shape) {
  IndexLayout layout;
  layout.dims.resize(shape.size());
  int64_t stride = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    layout.dims[i] = Coalesced({{shape[i], stride}});
    stride *= shape[i];
  }
  return layout;
}

IndexLayout Constant(const Shape& shape) {
  IndexLayout layout;
  for (int64_t size : shape) layout.dims.push_back(Coalesced({{size, 0}}));
  return layout;
}

IndexLayout WithoutRepeats(const IndexLayout& layout, int64_t kept) {
  IndexLayout result = layout;
  for (size_t i = 0; i < result.dims.size(); ++i) {
    if (static_cast<int64_t>(i) == kept) continue;
    AtomList moving;
    for (const Atom& atom : result.dims[i]) {
      if (atom.stride != 0) moving.push_back(atom);
    }
    result.dims[i] = Coalesced(moving);
  }
  return result;
}

IndexLayout RepeatedAs(const IndexLayout& like, int64_t kept, int64_t size) {
  IndexLayout result;
  result.dims.resize(like.dims.size());
  int64_t stride = 1;
  for (size_t i = like.dims.size(); i-- > 0;) {
    AtomList atoms;
    const auto& dim = like.dims[i];
    if (static_cast<int64_t>(i) == kept) {
      atoms.push_back({size, stride});
      stride *= size;
    } else {
      for (size_t j = dim.size(); j-- > 0;) {
        atoms.insert(atoms.begin(), {dim[j].size, dim[j].stride == 0 ? 0 : stride});
        if (dim[j].stride != 0) stride *= dim[j].size;
      }
    }
    result.dims[i] = Coalesced(atoms);
  }
  return result;
}

bool Reshape(const Shape& to, IndexLayout* layout) {
  AtomList rest;
  for (const AtomList& dim : layout->dims) rest.insert(rest.end(), dim.begin(), dim.end());
  rest = Coalesced(rest);
  if (SizeOf(rest) != NumElements(to)) return false;
  std::vector<AtomList> dims(to.size());
  // Takes atoms from the back, where a dimension's lower part is.
  for (size_t i = to.size(); i-- > 0;) {
    int64_t wanted = to[i];
    while (wanted > 1) {
      Atom& last = rest.back();
      if (wanted % last.size == 0) {
        wanted /= last.size;
        dims[i].insert(dims[i].begin(), last);
        rest.pop_back();
      } else if (last.size % wanted == 0) {
        dims[i].insert(dims[i].begin(), {wanted, last.stride});
        last = {last.size / wanted, last.stride * wanted};
        wanted = 1;
      } else {
        return false;
      }
    }
    dims[i] = Coalesced(dims[i]);
  }
  layout->dims = std::move(dims);
  return true;
}

bool Slice(int64_t dim, int64_t start, int64_t size, int64_t step, IndexLayout* layout) {
  AtomList& atoms = layout->dims[dim];
  if (start == 0 && step == 1 && size == SizeOf(atoms)) return true;
  if (size == 1) {
    // One element: its place in each atom.
    int64_t index = start;
    for (size_t i = atoms.size(); i-- > 0;) {
      layout->offset += index % atoms[i].size * atoms[i].stride;
      index /= atoms[i].size;
    }
    atoms.clear();
    return true;
  }
  if (atoms.empty()) return false;
  const int64_t lower = SizeOf(atoms) / atoms[0].size;
  if (lower > 1 && (step != 1 || start % lower != 0 || size % lower != 0)) return false;
  layout->offset += start / lower * atoms[0].stride;
  atoms[0] = {size / lower, atoms[0].stride * step};
  atoms = Coalesced(atoms);
  return true;
}

void Permute(const std::vector<int64_t>& order, IndexLayout* layout) {
  std::vector<AtomList> dims;
  for (int64_t dim : order) dims.push_back(layout->dims[dim]);
  layout->dims = std::move(dims);
}

void Expand(const Shape& to, IndexLayout* layout) {
  layout->dims.insert(layout->dims.begin(), to.size() - layout->dims.size(), AtomList{});
  for (size_t i = 0; i < to.size(); ++i) {
    if (layout->dims[i].empty()) layout->dims[i] = Coalesced({{to[i], 0}});
  }
}

void RemoveDim(int64_t dim, IndexLayout* layout) { layout->dims.erase(layout->dims.begin() + dim); }

int64_t SumOver(int64_t dim, IndexLayout* layout) {
  int64_t repeats = 1;
  for (const Atom& atom : layout->dims[dim]) {
    if (atom.stride == 0) {
      repeats *= atom.size;
    } else {
      layout->reduced.push_back(atom);
    }
  }
  std::ranges::sort(layout->reduced, [](const Atom& a, const Atom& b) {
    return std::pair(a.stride, a.size) > std::pair(b.stride, b.size);
  });
  layout->reduced = Coalesced(layout->reduced);
  RemoveDim(dim, layout);
  return repeats;
}

}  // namespace autosp::checker
