# System packages. Debian 12 names are in scripts/packages.txt; `./run setup` installs them.
#
# Targets that the tree may link: absl::*, protobuf::libprotobuf, gRPC::grpc++,
# prometheus-cpp::core, prometheus-cpp::pull, yaml-cpp, nlohmann_json::nlohmann_json, libzip::zip,
# SQLite::SQLite3, CLI11::CLI11, spdlog::spdlog, OpenSSL::Crypto, ZLIB::ZLIB, GTest::gtest,
# GTest::gmock, Threads::Threads.

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
find_package(Python3 COMPONENTS Interpreter REQUIRED)

# libzip's own CMake file also names its command line tools, which live in other Debian packages.
find_package(PkgConfig REQUIRED)
pkg_check_modules(LIBZIP REQUIRED IMPORTED_TARGET libzip)
add_library(libzip::zip ALIAS PkgConfig::LIBZIP)
