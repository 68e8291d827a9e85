# Boost.Beast's own tests: every test source that makes a context, one executable per part of Beast. Built the way
# Beast's own Jamfile does, with Boost.Asio and Boost.Beast compiled separately: so the tracking definition is tried in
# that mode too.
compat_substitute(beast_substituted libs/beast/test)
compat_substitute(beast_examples libs/beast/example)  # some of the documentation's tests include them
set(beast_stock "${compat_sources}/libs/beast/test")

set(count 0)
foreach(part IN ITEMS core http websocket _experimental doc)
  set(folder beast/${part})
  if(part STREQUAL "doc")
    set(folder doc)
  endif()
  string(REGEX REPLACE "^_" "" part "${part}")
  # What Beast's own Jamfile builds.
  file(STRINGS "${beast_stock}/${folder}/Jamfile" files REGEX "^ +[a-z_0-9]+\\.cpp")
  set(chosen "")
  foreach(file IN LISTS files)
    string(STRIP "${file}" file)
    string(PREPEND file "${folder}/")
    file(STRINGS "${beast_stock}/${file}" hits LIMIT_COUNT 1 REGEX "io_context|yield_to|[^a-z]ioc[^a-z]")
    if(NOT hits OR (file MATCHES "ssl" AND NOT OPENSSL_FOUND))
      continue()
    endif()
    list(APPEND chosen "${file}")
  endforeach()
  list(REMOVE_DUPLICATES chosen)
  list(LENGTH chosen length)
  math(EXPR count "${count} + ${length}")
  foreach(variant IN LISTS compat_variants)
    set(tree "${beast_substituted}")
    if(variant STREQUAL "stock")
      set(tree "${beast_stock}")
    endif()
    list(TRANSFORM chosen PREPEND "${tree}/" OUTPUT_VARIABLE sources)
    set(target compat_beast_${part}_${variant})
    compat_executable(${target} SOURCES ${sources} "${CMAKE_CURRENT_SOURCE_DIR}/cmake/beast_main.cpp")
    target_include_directories(${target} PRIVATE "${tree}" "${tree}/beast" "${tree}/extras/include" "${tree}/doc"
                                                 "${tree}/..")
    target_compile_definitions(
      ${target}
      PRIVATE BOOST_ASIO_SEPARATE_COMPILATION
              BOOST_BEAST_SEPARATE_COMPILATION
              BOOST_BEAST_TESTS
              BOOST_COROUTINES_NO_DEPRECATION_WARNING)
    compat_use_boost(${target} ${compat_source_version})
    compat_use_variant(${target} ${variant})
    if(OPENSSL_FOUND)
      target_compile_definitions(${target} PRIVATE COMPAT_HAS_OPENSSL)
      target_link_libraries(${target} PRIVATE OpenSSL::SSL OpenSSL::Crypto)
    endif()
    add_dependencies(compat_tests_${variant} ${target})
    compat_variant_test(compat.beast.${part} compat_beast_${part} ${variant} TIMEOUT 300)
  endforeach()
endforeach()
message(STATUS "compat: ${count} of Boost.Beast's own test files")
