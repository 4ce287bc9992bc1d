// Before protobuf's own header of this name, in builds for the sanitizer for races alone.
//
// In such builds that header gives every map of a message two fields more, which libprotobuf as
// Debian builds it does not know: what the library reads or writes of a map through reflection
// would lie elsewhere. Standard headers come first, since what they make of the macro is right.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>

#undef __SANITIZE_THREAD__
#include_next <google/protobuf/map_field.h>
#define __SANITIZE_THREAD__ 1
