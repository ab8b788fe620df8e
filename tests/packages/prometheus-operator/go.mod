// Not built: its definitions of ServiceMonitor and PrometheusRule are installed on the test's API server (see ../src/programs.rs).

module streamencryption.dev/packages/prometheus-operator

go 1.25.0

require github.com/prometheus-operator/prometheus-operator v0.85.0
