package translate

import (
	"iter"

	"meshbridge/translate/apisix"
	"meshbridge/xds"
)

// State is a translation that is kept up to date step by step.
type State struct{ options Options }

// New returns an empty State.
func New(opts Options) (*State, error) { return &State{options: opts}, nil }

// Translate translates a snapshot from scratch.
func Translate(opts Options, snap *xds.Snapshot, in Inputs) (*State, Result, error) {
	s, err := New(opts)
	if err != nil {
		return nil, Result{}, err
	}
	return s, s.Apply(Input{Snapshot: snap, All: true, Inputs: in}), nil
}

// Apply brings the State up to date.
func (s *State) Apply(in Input) Result { return Result{} }

// Objects yields the objects, sorted by key.
func (s *State) Objects() iter.Seq[apisix.Object] { return func(func(apisix.Object) bool) {} }

// Diagnostics returns what could not be expressed, sorted.
func (s *State) Diagnostics() []Diagnostic { return nil }

// Chains returns the chain table, sorted by Key.
func (s *State) Chains() []*Chain { return nil }
