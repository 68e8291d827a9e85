# The three ways in which other people's code is built here:
#   stock      plain Boost.Asio: the baseline
#   pulse      its io_contexts are asio_pulse::io_contexts, tracking on
#   preempt    the same with every operation parked once (ASIO_PULSE_ALWAYS_PREEMPT=1 throughout)
option(ASIO_PULSE_COMPAT_STOCK
       "Build and run the baseline of every test too, not only of those that fail with io_context substituted" OFF)
if(ASIO_PULSE_ALWAYS_PREEMPT)
  # The whole build is the third variant already.
  set(compat_variants stock preempt)
else()
  set(compat_variants stock pulse preempt)
endif()

if(NOT ASIO_PULSE_ALWAYS_PREEMPT)
  # The library once more, from the same sources. Its headers decide most of this mode, but a program must not mix
  # the two.
  set(sources "")
  set(includes "")
  foreach(module IN ITEMS asio_pulse_timing asio_pulse_hooks_core asio_pulse_hooks_tracked asio_pulse_core)
    get_target_property(module_sources ${module} SOURCES)
    get_target_property(module_dir ${module} SOURCE_DIR)
    get_target_property(module_includes ${module} INTERFACE_INCLUDE_DIRECTORIES)
    foreach(source IN LISTS module_sources)
      cmake_path(ABSOLUTE_PATH source BASE_DIRECTORY "${module_dir}")
      list(APPEND sources "${source}")
    endforeach()
    list(APPEND includes ${module_includes})
  endforeach()
  get_target_property(abi_includes asio_pulse_bpf_abi INTERFACE_INCLUDE_DIRECTORIES)
  list(APPEND includes ${abi_includes})
  add_library(compat_always_preempt STATIC EXCLUDE_FROM_ALL ${sources})
  target_compile_features(compat_always_preempt PUBLIC cxx_std_20)
  target_include_directories(compat_always_preempt PUBLIC ${includes})
  target_compile_definitions(
    compat_always_preempt
    PUBLIC ASIO_PULSE_ALWAYS_PREEMPT=1
    INTERFACE "BOOST_ASIO_CUSTOM_HANDLER_TRACKING=\"asio_pulse/hooks/tracking.hpp\"")
  target_link_libraries(compat_always_preempt PUBLIC Threads::Threads PRIVATE fmt::fmt)
endif()

# compat_use_variant(TARGET VARIANT)
function(compat_use_variant target variant)
  if(variant STREQUAL "stock")
    return()
  endif()
  if(variant STREQUAL "preempt" AND TARGET compat_always_preempt)
    target_link_libraries(${target} PRIVATE compat_always_preempt)
  else()
    target_link_libraries(${target} PRIVATE asio_pulse::asio_pulse)
  endif()
  if(variant STREQUAL "preempt")
    target_compile_definitions(${target} PRIVATE COMPAT_ALWAYS_PREEMPT)
  endif()
  target_compile_options(${target} PRIVATE "SHELL:-include ${PROJECT_SOURCE_DIR}/tests/compat/cmake/substitution.hpp")
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

# compat_variant_test(NAME EXECUTABLE_STEM VARIANT [TIMEOUT seconds] [SERIAL] [ARGS ...]): the ctest test NAME.VARIANT for
# the executable STEM_VARIANT. A substituted program that fails is run on stock too: what fails there as well is this
# machine's business (no IPv6, no multicast route), is said, and is skipped.
function(compat_variant_test name stem variant)
  cmake_parse_arguments(PARSE_ARGV 3 arg "SERIAL" "TIMEOUT" "ARGS")
  set(options "")
  if(arg_SERIAL)
    list(APPEND options SERIAL)
  endif()
  if(arg_TIMEOUT)
    list(APPEND options TIMEOUT ${arg_TIMEOUT})
  endif()
  set(script "${PROJECT_SOURCE_DIR}/tests/compat/run_variant")
  if(variant STREQUAL "stock")
    if(NOT ASIO_PULSE_COMPAT_STOCK)
      return()
    endif()
    compat_test(${name}.stock ${options} COMMAND "${script}" --stock ${name} "$<TARGET_FILE:${stem}_stock>" ${arg_ARGS})
  else()
    compat_test(${name}.${variant} ${options} COMMAND "${script}" "$<TARGET_FILE:${stem}_stock>"
                "$<TARGET_FILE:${stem}_${variant}>" ${arg_ARGS})
  endif()
endfunction()
