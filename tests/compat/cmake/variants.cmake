# How sources of other projects are built and run here:
#   stock      plain Boost.Asio: the baseline
#   pulse      its io_contexts are asio_pulse::io_contexts, tracking on
#   preempt    the program of `pulse` once more, with every operation parked once (ASIO_PULSE_ALWAYS_PREEMPT=1)
option(ASIO_PULSE_COMPAT_STOCK
       "Build and run the baseline of every test too, not only of those that fail with io_context substituted" OFF)
set(compat_builds stock pulse)
set(compat_preempt_environment ASIO_PULSE_ALWAYS_PREEMPT=1)

# The library once more, from the same sources, with the switch that `preempt` needs.
set(sources "")
set(includes "")
set(own_includes "")
asio_pulse_read_rooms("${PROJECT_SOURCE_DIR}/asio_pulse/rooms.txt")
set(modules asio_pulse_timing asio_pulse_hooks_core asio_pulse_hooks_tracked asio_pulse_core)
foreach(room IN LISTS asio_pulse_rooms)
  if(TARGET asio_pulse_room_${room})
    list(APPEND modules asio_pulse_room_${room})
  endif()
endforeach()
foreach(module IN LISTS modules)
  get_target_property(module_sources ${module} SOURCES)
  if(NOT module_sources)  # headers alone
    continue()
  endif()
  list(FILTER module_sources EXCLUDE REGEX "TARGET_OBJECTS")
  get_target_property(module_dir ${module} SOURCE_DIR)
  get_target_property(module_includes ${module} INTERFACE_INCLUDE_DIRECTORIES)
  foreach(source IN LISTS module_sources)
    cmake_path(ABSOLUTE_PATH source BASE_DIRECTORY "${module_dir}")
    set_source_files_properties("${source}" PROPERTIES UNITY_GROUP ${module})
    list(APPEND sources "${source}")
  endforeach()
  if(module MATCHES "_room_")
    get_target_property(module_own_includes ${module} INCLUDE_DIRECTORIES)  # generated sources among them
    list(APPEND own_includes ${module_own_includes})
  else()
    list(APPEND includes ${module_includes})
  endif()
endforeach()
get_target_property(internal_includes asio_pulse_internals INTERFACE_INCLUDE_DIRECTORIES)
get_target_property(abi_includes asio_pulse_bpf_abi INTERFACE_INCLUDE_DIRECTORIES)
list(APPEND includes ${abi_includes})
add_library(compat_library STATIC EXCLUDE_FROM_ALL ${sources})
set_target_properties(compat_library PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
asio_pulse_permit_unity(compat_library)
target_compile_features(compat_library PUBLIC cxx_std_20)
target_include_directories(compat_library PUBLIC ${includes} PRIVATE ${internal_includes} ${own_includes})
target_compile_definitions(
  compat_library
  PUBLIC ASIO_PULSE_TESTABLE_PREEMPTION=1
  INTERFACE "BOOST_ASIO_CUSTOM_HANDLER_TRACKING=\"asio_pulse/hooks/tracking.hpp\"")
target_link_libraries(compat_library PUBLIC Threads::Threads PRIVATE fmt::fmt asio_pulse_timing_internals)

# compat_use_build(TARGET stock|pulse [HEADERS]): HEADERS: of compat_precompile().
function(compat_use_build target build)
  if(build STREQUAL "stock")
    return()
  endif()
  target_link_libraries(${target} PRIVATE compat_library)
  set(substitution "${PROJECT_SOURCE_DIR}/tests/compat/cmake/substitution.hpp")
  if(ARGC GREATER 2)
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
      target_compile_options(${target} PRIVATE -fpch-preprocess)  # for ccache
    else()
      target_compile_options(${target} PRIVATE "SHELL:-Xclang -fno-pch-timestamp")  # for ccache
    endif()
    if(target STREQUAL "${ARGV2}")
      target_precompile_headers(${target} PRIVATE "${substitution}")  # before all others
    else()
      target_precompile_headers(${target} REUSE_FROM ${ARGV2})
    endif()
  else()
    target_compile_options(${target} PRIVATE "SHELL:-include ${substitution}")
  endif()
endfunction()

# compat_precompile(NAME [BACKEND backend] [DEFINITIONS ...] HEADERS ...): adds the target NAME, which
# precompiles these headers for programs of the build `pulse` with the same definitions. Reading headers takes
# most of the time of an unoptimised build.
function(compat_precompile name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "BACKEND" "DEFINITIONS;HEADERS")
  set(empty "${CMAKE_CURRENT_BINARY_DIR}/${name}.cpp")
  file(CONFIGURE OUTPUT "${empty}" CONTENT "")
  add_library(${name} OBJECT EXCLUDE_FROM_ALL "${empty}")
  compat_foreign_code(${name})
  compat_use_boost(${name} ${compat_source_version})
  target_compile_definitions(${name} PRIVATE ${arg_DEFINITIONS})
  if(arg_BACKEND)
    compat_use_backend(${name} ${arg_BACKEND})
  endif()
  compat_use_build(${name} pulse ${name})
  target_precompile_headers(${name} PRIVATE ${arg_HEADERS})
endfunction()

# compat_substitute(OUT TREE): sets OUT to the folder that holds TREE of the test sources with every io_context
# substituted.
function(compat_substitute out tree)
  set(from "${compat_sources}/${tree}")
  set(to "${CMAKE_BINARY_DIR}/compat_substituted/${tree}")
  set(script "${PROJECT_SOURCE_DIR}/tests/compat/substitute")
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${script}")
  file(READ "${compat_sources}/package" package)
  file(SHA256 "${script}" hash)
  set(stamp "${to}.stamp")
  set(have "")
  if(EXISTS "${stamp}")
    file(READ "${stamp}" have)
  endif()
  if(NOT have STREQUAL "${package}${hash}")
    file(REMOVE_RECURSE "${to}")
    file(MAKE_DIRECTORY "${to}")
    execute_process(COMMAND "${script}" "${from}" "${to}" OUTPUT_FILE "${to}.log" COMMAND_ERROR_IS_FATAL ANY)
    file(WRITE "${stamp}" "${package}${hash}")
  endif()
  set(${out} "${to}" PARENT_SCOPE)
endfunction()

# compat_variant_test(NAME EXECUTABLE_STEM [TIMEOUT seconds] [SERIAL]): the ctest tests NAME.pulse and NAME.preempt, and
# NAME.stock if that was asked for. If a substituted program fails, it is run on stock as well. If it fails
# there, too, the cause is the machine (no IPv6, no multicast route); the test is skipped and says so.
function(compat_variant_test name stem)
  cmake_parse_arguments(PARSE_ARGV 2 arg "SERIAL" "TIMEOUT" "")
  set(options "")
  if(arg_SERIAL)
    list(APPEND options SERIAL)
  endif()
  if(arg_TIMEOUT)
    list(APPEND options TIMEOUT ${arg_TIMEOUT})
  endif()
  set(script "${PROJECT_SOURCE_DIR}/tests/compat/run_variant")
  if(ASIO_PULSE_COMPAT_STOCK)
    compat_test(${name}.stock ${options} COMMAND "${script}" --stock ${name} "$<TARGET_FILE:${stem}_stock>")
  endif()
  foreach(variant IN ITEMS pulse preempt)
    compat_test(${name}.${variant} ${options} COMMAND "${script}" "$<TARGET_FILE:${stem}_stock>"
                "$<TARGET_FILE:${stem}_pulse>")
  endforeach()
  set_tests_properties(${name}.preempt PROPERTIES ENVIRONMENT "${compat_preempt_environment}")
endfunction()
