package store_test

import (
	"fmt"

	"meshbridge/store"
)

// A watcher is a cursor over the log: it takes what is there and waits for more.
func Example() {
	s, err := store.New(store.Config{})
	if err != nil {
		panic(err)
	}
	defer s.Close()

	routes := []byte("/apisix/routes/")
	cursor, err := s.Watch(routes, store.Prefix(routes), 0)
	if err != nil {
		panic(err)
	}
	defer cursor.Close()

	go func() {
		_, _ = s.Put(store.PutOp{Key: []byte("/apisix/routes/1"), Value: []byte(`{"uri":"/"}`)})
	}()

	<-cursor.Wait()
	blocks, err := cursor.Next(0)
	if err != nil {
		panic(err)
	}
	for _, block := range blocks {
		for _, event := range block.Select(routes, store.Prefix(routes)) {
			fmt.Printf("revision %d: %s = %s\n", block.Revision, event.KV.Key, event.KV.Value)
		}
	}
	// Output:
	// revision 2: /apisix/routes/1 = {"uri":"/"}
}
