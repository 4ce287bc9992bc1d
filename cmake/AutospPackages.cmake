# System packages. Debian 12 names are in scripts/packages.txt; `./run setup` installs them.
#
# Targets that the tree may link: absl::*, protobuf::libprotobuf, gRPC::grpc++,
# prometheus-cpp::core, prometheus-cpp::pull, yaml-cpp, nlohmann_json::nlohmann_json, libzip::zip,
# SQLite::SQLite3, CLI11::CLI11, spdlog::spdlog, OpenSSL::Crypto, ZLIB::ZLIB, GTest::gtest,
# GTest::gmock, Threads::Threads, and for programs that make plans autosp_plan_allocator.

find_package(Threads REQUIRED)
find_package(absl REQUIRED)
find_package(Protobuf REQUIRED)
find_package(gRPC CONFIG REQUIRED)
find_package(prometheus-cpp CONFIG REQUIRED)
find_package(yaml-cpp CONFIG REQUIRED)
find_package(nlohmann_json CONFIG REQUIRED)
find_package(CLI11 CONFIG REQUIRED)
find_package(spdlog CONFIG REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(SQLite3 REQUIRED)
find_package(ZLIB REQUIRED)
find_package(GTest CONFIG REQUIRED)
find_package(mimalloc CONFIG REQUIRED)
find_package(Python3 COMPONENTS Interpreter REQUIRED)

# libzip's own CMake file also names its command line tools, which live in other Debian packages.
find_package(PkgConfig REQUIRED)
pkg_check_modules(LIBZIP REQUIRED IMPORTED_TARGET libzip)
add_library(libzip::zip ALIAS PkgConfig::LIBZIP)

# Plans are many small values, and glibc's allocator takes a quarter of the time of making them.
# Sanitizers bring an allocator of their own. No call names the library, hence --no-as-needed. It is
# C: its operator new knows no new_handler and aborts, so that libstdc++'s is to be found first.
add_library(autosp_plan_allocator INTERFACE)
if(NOT AUTOSP_SANITIZE)
  target_link_libraries(autosp_plan_allocator
    INTERFACE -Wl,--push-state,--no-as-needed stdc++ mimalloc -Wl,--pop-state)
endif()
