# Finds the other libraries that the commands, the bench harness and their tests use:
#
#   CLI11::CLI11       reads command lines
#   asio_pulse_json    Boost.JSON (from Boost 1.75 on), compiled here from its headers, so that no Boost library has to be
#                      linked
#
# asio_pulse_missing_libraries lists the missing ones, by the names of their CMake variables.
include_guard(GLOBAL)

find_package(CLI11 QUIET)
find_file(ASIO_PULSE_BOOST_JSON boost/json/src.hpp HINTS ${Boost_INCLUDE_DIRS})
mark_as_advanced(ASIO_PULSE_BOOST_JSON)
set(asio_pulse_missing_libraries "")
foreach(need CLI11_FOUND ASIO_PULSE_BOOST_JSON)
  if(NOT ${need})
    list(APPEND asio_pulse_missing_libraries ${need})
  endif()
endforeach()

if(ASIO_PULSE_BOOST_JSON)
  set(source "${PROJECT_BINARY_DIR}/boost_json.cpp")
  file(CONFIGURE OUTPUT "${source}" CONTENT "#include <boost/json/src.hpp>\n")
  add_library(asio_pulse_json STATIC EXCLUDE_FROM_ALL "${source}")
  target_compile_features(asio_pulse_json PUBLIC cxx_std_20)
  target_link_libraries(asio_pulse_json PUBLIC Boost::headers)
endif()
