// Reads a JSON list of Kubernetes resources and prints, as a JSON list, the result of kstatus for each. Flux
// and `helm --wait` act on it.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

type answer struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

func main() {
	answers, err := compute()
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(answers)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func compute() ([]answer, error) {
	var resources []json.RawMessage
	if err := json.NewDecoder(os.Stdin).Decode(&resources); err != nil {
		return nil, fmt.Errorf("standard input is no list of resources: %w", err)
	}
	answers := make([]answer, 0, len(resources))
	for _, text := range resources {
		// Parsed as by client-go: whole numbers are integers, which kstatus relies on.
		resource := &unstructured.Unstructured{}
		if err := resource.UnmarshalJSON(text); err != nil {
			return nil, err
		}
		result, err := status.Compute(resource)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", resource.GetName(), err)
		}
		answers = append(answers, answer{Status: string(result.Status), Message: result.Message})
	}
	return answers, nil
}
