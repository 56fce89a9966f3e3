//! `src/samples` and `manifests/nvidia-plugin`: what there is to put to sleep.

use serde_json::{Value, json};

use crate::objects::{container, find, names, of_directory, only, patched, read, rendered};

fn deployment(app: char) -> Value {
    only(&format!("src/samples/app-{app}/manifests/deployment.yaml"))
}

// F22, F23, A-023, A-068, A-084, A-087, A-171, A-172, K-13, K-24, W-A46: names, namespaces, both label sets, asleep at the
// start with a count to wake to, a ClusterIP Service.
#[test]
fn samples_have_the_names_and_labels_that_the_founding_documents_use() {
    for app in ['a', 'b'] {
        let name = format!("sample-app-{app}");
        let namespace = format!("project-{app}");
        let objects = of_directory(&format!("src/samples/app-{app}/manifests"));
        assert_eq!(
            names(&objects),
            [format!("Deployment/{name}"), format!("Service/{name}")]
        );
        for object in &objects {
            assert_eq!(object["metadata"]["namespace"], namespace.as_str());
        }
        let deployment = deployment(app);
        let labels = json!({
            "app": name, "app.kubernetes.io/name": name, "project": app.to_string(),
        });
        assert_eq!(deployment["spec"]["template"]["metadata"]["labels"], labels);
        assert_eq!(deployment["metadata"]["labels"], labels);
        assert_eq!(
            deployment["metadata"]["annotations"],
            json!({ "nagi.dev/awake-replicas": "1" })
        );
        assert_eq!(deployment["spec"]["replicas"], 0);
        let service = find(&objects, "Service", &name);
        assert_eq!(service["spec"]["type"], "ClusterIP");
        let selector = service["spec"]["selector"].as_object().unwrap();
        assert!(selector.iter().all(|(key, value)| labels[key] == *value));
        assert_eq!(
            container(&deployment)["image"],
            format!("{name}:{}", env!("CARGO_PKG_VERSION"))
        );
        assert_eq!(container(&deployment)["name"], name.as_str());
        let rendered = rendered(&format!("src/samples/app-{app}"));
        find(&rendered, "Namespace", &namespace);
        assert_eq!(*find(&rendered, "Deployment", &name), deployment);
        let pod = &deployment["spec"]["template"]["spec"];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(
            container(&deployment)["securityContext"],
            json!({
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": { "drop": ["ALL"] },
            })
        );
    }
}

// F22, A-028, A-171
#[test]
fn sample_a_has_the_values_of_the_specification() {
    let deployment = deployment('a');
    let pod = &deployment["spec"]["template"]["spec"];
    let container = container(&deployment);
    assert_eq!(pod["nodeSelector"], json!({ "project": "a" }));
    assert_eq!(pod["securityContext"]["runAsUser"], 101);
    assert_eq!(
        container["ports"],
        json!([{ "name": "http", "containerPort": 8080, "protocol": "TCP" }])
    );
    assert_eq!(
        container["resources"],
        json!({
            "requests": { "cpu": "50m", "memory": "64Mi" },
            "limits": { "cpu": "200m", "memory": "128Mi" },
        })
    );
    for probe in ["livenessProbe", "readinessProbe"] {
        assert_eq!(
            container[probe]["httpGet"],
            json!({ "path": "/health", "port": "http" })
        );
    }
    let service = only("src/samples/app-a/manifests/service.yaml");
    assert_eq!(
        service["spec"]["ports"],
        json!([{ "name": "http", "port": 80, "targetPort": "http" }])
    );
    let config = read("src/samples/app-a/nginx.conf");
    assert!(config.contains("location = /health") && config.contains("return 200 \"healthy\";"));
    assert!(config.contains("listen 8080;"));
}

// F22, A-024, A-028: the two patches of the founding documents.
#[test]
fn patches_of_the_founding_documents_apply_to_sample_a() {
    let deployment = deployment('a');
    let selector =
        json!({ "spec": { "template": { "spec": { "nodeSelector": { "project": "a" } } } } });
    assert_eq!(
        patched(&deployment, &selector),
        deployment,
        "it is steered so already"
    );
    let one = patched(&deployment, &json!({ "spec": { "replicas": 1 } }));
    assert_eq!(one["spec"]["replicas"], 1);
}

// F23, A-172, K-20, W-A38, W-A40
#[test]
fn sample_b_has_the_values_of_the_specification() {
    let deployment = deployment('b');
    let pod = &deployment["spec"]["template"]["spec"];
    let container = container(&deployment);
    assert_eq!(
        pod["nodeSelector"],
        json!({ "project": "b", "workload": "gpu" })
    );
    assert_eq!(
        pod["tolerations"],
        json!([{ "key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule" }])
    );
    let ports: Vec<(&str, u64)> = container["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|port| {
            (
                port["name"].as_str().unwrap(),
                port["containerPort"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(ports, [("http", 8000), ("grpc", 8001), ("metrics", 8002)]);
    assert_eq!(
        container["resources"],
        json!({
            "requests": { "cpu": "1000m", "memory": "2Gi", "nvidia.com/gpu": "1" },
            "limits": { "cpu": "2000m", "memory": "4Gi", "nvidia.com/gpu": "1" },
        })
    );
    assert_eq!(
        container["livenessProbe"],
        json!({
            "httpGet": { "path": "/v2/health/live", "port": "http" },
            "initialDelaySeconds": 60, "periodSeconds": 30, "timeoutSeconds": 10, "failureThreshold": 3,
        })
    );
    assert_eq!(
        container["readinessProbe"],
        json!({
            "httpGet": { "path": "/v2/health/ready", "port": "http" },
            "initialDelaySeconds": 30, "periodSeconds": 10, "timeoutSeconds": 10, "failureThreshold": 3,
        })
    );
    assert_eq!(
        container["volumeMounts"],
        json!([{ "name": "tmp", "mountPath": "/tmp" }]),
        "nothing hides the model's settings"
    );
}

// F23, A-173: the settings of the model, without comments and blanks.
#[test]
fn model_has_the_settings_of_the_specification() {
    let text = read("src/samples/app-b/models/resnet50/config.pbtxt");
    let settings: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(str::split_whitespace)
        .collect();
    for wanted in [
        r#"name:"resnet50"platform:"onnxruntime_onnx"max_batch_size:8"#,
        r#"input[{name:"data"data_type:TYPE_FP32format:FORMAT_NCHWdims:[3,224,224]}]"#,
        r#"output[{name:"resnetv17_dense0_fwd"data_type:TYPE_FP32dims:[1000]}]"#,
        "instance_group[{count:1kind:KIND_GPU}]",
        "dynamic_batching{max_queue_delay_microseconds:100}",
        "cuda{graphs:true}",
    ] {
        assert!(settings.contains(wanted), "{wanted} in {settings}");
    }
}

// F23, A-115, A-175, W-A42: only nodes of the GPU pool run the device plugin.
#[test]
fn device_plugin_runs_on_gpu_nodes_only() {
    let objects = of_directory("manifests/nvidia-plugin");
    assert_eq!(
        names(&objects),
        [
            "Namespace/gpu-resources",
            "DaemonSet/nvidia-device-plugin-daemonset"
        ]
    );
    let plugin = find(&objects, "DaemonSet", "nvidia-device-plugin-daemonset");
    assert_eq!(plugin["metadata"]["namespace"], "gpu-resources");
    let pod = &plugin["spec"]["template"]["spec"];
    assert_eq!(
        container(plugin)["image"],
        "nvcr.io/nvidia/k8s-device-plugin:v0.17.2"
    );
    assert_eq!(pod["priorityClassName"], "system-node-critical");
    assert_eq!(pod["nodeSelector"], json!({ "workload": "gpu" }));
    assert_eq!(
        pod["tolerations"],
        json!([{ "key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule" }])
    );
    let sockets = "/var/lib/kubelet/device-plugins";
    assert_eq!(container(plugin)["volumeMounts"][0]["mountPath"], sockets);
    assert_eq!(pod["volumes"][0]["hostPath"]["path"], sockets);
}
