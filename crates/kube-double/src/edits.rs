//! What a test does with objects by hand, as people and controllers do.

use serde_json::Value;

use crate::server::Double;
use crate::store::Writer;

impl Double {
    /// Creates or replaces an object, as the manager `kubectl`.
    ///
    /// # Panics
    /// When its kind is not served.
    pub fn put(&self, object: Value) -> Value {
        self.put_as("kubectl", object)
    }

    /// The same as another manager.
    ///
    /// # Panics
    /// When its kind is not served.
    pub fn put_as(&self, manager: &str, object: Value) -> Value {
        let subresource = None;
        self.put_by(
            Writer {
                manager,
                subresource,
            },
            object,
        )
    }

    /// Sets the count of an object with `/spec/replicas` through its `scale`, as `kubectl scale` does.
    ///
    /// # Panics
    /// When it is not there.
    pub fn scale(&self, path: &str, count: u32) -> Value {
        let mut object = self.get(path).expect("the object is there");
        object["spec"]["replicas"] = count.into();
        let writer = Writer {
            manager: "kubectl",
            subresource: Some("scale"),
        };
        self.put_by(writer, object)
    }

    fn put_by(&self, writer: Writer<'_>, object: Value) -> Value {
        let mut store = self.shared.store();
        let found = store.resources.of_object(&object);
        let resource = found.expect("a kind that is served").0;
        let object = store.put(&resource, object, writer);
        drop(store);
        self.shared.tick();
        object
    }

    /// Changes an object in place, as the manager `kubectl`.
    ///
    /// # Panics
    /// When it is not there.
    pub fn edit(&self, path: &str, change: impl FnOnce(&mut Value)) -> Value {
        let mut object = self.get(path).expect("the object is there");
        change(&mut object);
        self.put(object)
    }

    /// The object at a path such as `/apis/apps/v1/namespaces/a/deployments/b`.
    pub fn get(&self, path: &str) -> Option<Value> {
        let (resource, key) = self.locate(path)?;
        self.shared.store().get(&resource, &key)
    }

    /// Removes the object at a path; false when it was not there.
    pub fn delete(&self, path: &str) -> bool {
        let Some((resource, key)) = self.locate(path) else {
            return false;
        };
        let gone = self.shared.store().delete(&resource, &key).is_some();
        self.shared.tick();
        gone
    }
}
