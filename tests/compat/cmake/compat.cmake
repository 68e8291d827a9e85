# compat_read_cache(): sets variables of the caller to the contents of fetch_boost's cache (see
# CMakeLists.txt).
function(compat_read_cache)
  execute_process(
    COMMAND "${CMAKE_CURRENT_FUNCTION_LIST_DIR}/../fetch_boost" --list
    OUTPUT_VARIABLE lines
    OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  string(REPLACE "\n" ";" lines "${lines}")
  set(boosts "")
  foreach(line IN LISTS lines)
    separate_arguments(field UNIX_COMMAND "${line}")
    list(GET field 0 kind)
    list(GET field 1 version)
    list(GET field 2 directory)
    if(kind STREQUAL "headers")
      list(GET field 3 lib)
      list(APPEND boosts ${version})
      set(compat_include_${version} "${directory}" PARENT_SCOPE)
      set(compat_lib_${version} "${lib}" PARENT_SCOPE)
    else()
      set(compat_source_version ${version} PARENT_SCOPE)
      set(compat_sources "${directory}" PARENT_SCOPE)
    endif()
    # Configure again when the cache was refreshed.
    get_filename_component(top "${directory}/.." ABSOLUTE)
    if(EXISTS "${top}/offered")
      set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${top}/offered")
    endif()
  endforeach()
  set(compat_boosts ${boosts} PARENT_SCOPE)
  list(JOIN boosts ", " shown)
  message(STATUS "compat: Boosts in the cache: ${shown}")
endfunction()

# compat_use_boost(TARGET VERSION): compiles TARGET with the cached headers of that Boost, before the system's own, and
# links its compiled half of stackful coroutines.
function(compat_use_boost target version)
  target_include_directories(${target} SYSTEM BEFORE PRIVATE "${compat_include_${version}}")
  foreach(lib coroutine thread context)
    if(EXISTS "${compat_lib_${version}}/libboost_${lib}.a")
      target_link_libraries(${target} PRIVATE "${compat_lib_${version}}/libboost_${lib}.a")
    endif()
  endforeach()
  target_link_libraries(${target} PRIVATE Threads::Threads)
endfunction()

# compat_executable(NAME SOURCES FILE...): an executable from sources of other projects. It is not in `all`,
# has no warnings, is not optimised (since it runs only once), and has assertions.
function(compat_executable name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES")
  add_executable(${name} EXCLUDE_FROM_ALL ${arg_SOURCES})
  compat_foreign_code(${name})
  # The baseline takes a third of the build time, and is needed only if something fails.
  if(ASIO_PULSE_COMPAT_STOCK OR NOT name MATCHES "_stock$")
    add_dependencies(compat_tests ${name})
  endif()
endfunction()

function(compat_foreign_code target)
  set_target_properties(${target} PROPERTIES CXX_CLANG_TIDY "" COMPILE_WARNING_AS_ERROR OFF EXPORT_COMPILE_COMMANDS OFF)
  target_compile_features(${target} PRIVATE cxx_std_20)
  target_compile_options(${target} PRIVATE -w -O0 -g0 -UNDEBUG)
  # There are more than a hundred of them to link.
  if(ASIO_PULSE_MOLD)
    target_link_options(${target} PRIVATE -fuse-ld=mold)
  endif()
endfunction()

# compat_test(NAME [TIMEOUT seconds] [SERIAL] COMMAND ...): a ctest test that requires the fixture
# compat.build. Exit status 77 means that it was skipped; the reason is printed.
function(compat_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "SERIAL" "TIMEOUT" "COMMAND")
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  add_test(NAME ${name} COMMAND ${arg_COMMAND})
  set_tests_properties(
    ${name}
    PROPERTIES LABELS compat
               TIMEOUT ${arg_TIMEOUT}
               SKIP_RETURN_CODE 77
               FIXTURES_REQUIRED compat)
  if(arg_SERIAL)
    set_tests_properties(${name} PROPERTIES RUN_SERIAL TRUE)
  endif()
endfunction()
