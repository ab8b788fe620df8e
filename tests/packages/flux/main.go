// Reads a health check of Flux and a JSON list of Kubernetes resources, and prints, as a JSON list, the
// status of each resource as Flux evaluates it.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

type question struct {
	Check     kustomize.CustomHealthCheck `json:"check"`
	Resources []json.RawMessage           `json:"resources"`
}

func main() {
	answers, err := evaluate()
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(answers)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func evaluate() ([]string, error) {
	var asked question
	decoder := json.NewDecoder(os.Stdin)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&asked); err != nil {
		return nil, fmt.Errorf("standard input has no health check and resources: %w", err)
	}
	evaluator, err := cel.NewStatusEvaluator(&asked.Check.HealthCheckExpressions)
	if err != nil {
		return nil, err
	}
	answers := make([]string, 0, len(asked.Resources))
	for _, text := range asked.Resources {
		resource := &unstructured.Unstructured{}
		if err := resource.UnmarshalJSON(text); err != nil {
			return nil, err
		}
		result, err := evaluator.Evaluate(context.Background(), resource)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", resource.GetName(), err)
		}
		answers = append(answers, string(result.Status))
	}
	return answers, nil
}
