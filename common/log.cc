#include "common/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <cstdlib>
#include <memory>
#include <optional>
#include <string>

#include "absl/strings/str_replace.h"

namespace autosp {
namespace {

std::optional<LogLevel> ParseLevel(absl::string_view text) {
  if (text == "debug") return LogLevel::kDebug;
  if (text == "info") return LogLevel::kInfo;
  if (text == "warning") return LogLevel::kWarning;
  if (text == "error") return LogLevel::kError;
  if (text == "off") return LogLevel::kOff;
  return std::nullopt;
}

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
    case LogLevel::kOff:
      return spdlog::level::off;
  }
  return spdlog::level::info;
}

void SetPattern(spdlog::logger& logger, absl::string_view process) {
  // A percent sign in a node's name must not become a field of spdlog's pattern.
  const std::string name = absl::StrReplaceAll(process, {{"%", "%%"}});
  logger.set_pattern(absl::StrCat("%Y-%m-%dT%H:%M:%S.%eZ %L ", name, name.empty() ? "" : " ", "%v"),
                     spdlog::pattern_time_type::utc);
}

std::shared_ptr<spdlog::logger> MakeLogger() {
  auto logger =
      std::make_shared<spdlog::logger>("autosp", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  SetPattern(*logger, "");
  logger->flush_on(spdlog::level::debug);
  const char* wanted = std::getenv("AUTOSP_LOG");
  const std::optional<LogLevel> level = ParseLevel(wanted == nullptr ? "info" : wanted);
  logger->set_level(ToSpdlog(level.value_or(LogLevel::kInfo)));
  if (!level.has_value()) {
    logger->warn("AUTOSP_LOG ({}) is not one of debug, info, warning, error, off; using info",
                 wanted);
  }
  return logger;
}

// Never destroyed: threads may log while the process exits.
spdlog::logger& Logger() {
  static auto& logger = *new std::shared_ptr<spdlog::logger>(MakeLogger());
  return *logger;
}

}  // namespace

void InitLogging(absl::string_view role, absl::string_view instance) {
  SetPattern(Logger(),
             instance.empty() ? std::string(role) : absl::StrCat(role, "[", instance, "]"));
}

void SetLogLevel(LogLevel level) { Logger().set_level(ToSpdlog(level)); }

bool IsLogged(LogLevel level) { return Logger().should_log(ToSpdlog(level)); }

void LogMessage(LogLevel level, absl::string_view message) {
  Logger().log(ToSpdlog(level), absl::StrReplaceAll(message, {{"\n", "\\n"}}));
}

}  // namespace autosp
