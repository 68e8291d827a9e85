# SPDX-License-Identifier: BSL-1.0
# Joins the report's page from its parts: template.html with /*CSS*/ replaced by report.css and /*JS*/ by all .js files in the
# order of their names. /*RESULT*/ stays: the harness fills it in. check.py joins them by the same rule.
#   include(benches/report/report.cmake)
#   asio_pulse_report_page("${CMAKE_CURRENT_BINARY_DIR}/report.html")
set(ASIO_PULSE_REPORT_DIR "${CMAKE_CURRENT_LIST_DIR}")

function(asio_pulse_report_page output)
  file(GLOB scripts CONFIGURE_DEPENDS "${ASIO_PULSE_REPORT_DIR}/*.js")
  list(SORT scripts)
  # A change of a part must configure again, as the page is joined then.
  set_property(
    DIRECTORY
    APPEND
    PROPERTY CMAKE_CONFIGURE_DEPENDS "${ASIO_PULSE_REPORT_DIR}/template.html" "${ASIO_PULSE_REPORT_DIR}/report.css" ${scripts})
  file(READ "${ASIO_PULSE_REPORT_DIR}/template.html" page)
  file(READ "${ASIO_PULSE_REPORT_DIR}/report.css" css)
  set(js "")
  foreach(script IN LISTS scripts)
    file(READ "${script}" part)
    string(APPEND js "${part}")
  endforeach()
  string(REPLACE "/*CSS*/" "${css}" page "${page}")
  string(REPLACE "/*JS*/" "${js}" page "${page}")
  # Writes only what has changed, so that nothing is built again for nothing.
  set(old "")
  if(EXISTS "${output}")
    file(READ "${output}" old)
  endif()
  if(NOT "${old}" STREQUAL "${page}")
    file(WRITE "${output}" "${page}")
  endif()
endfunction()
